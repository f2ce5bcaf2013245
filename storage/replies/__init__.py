"""Jobs in the words of other services: what their clients read, and what their webhooks say."""
