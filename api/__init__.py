"""The way in and out: HTTP, authentication, limits and the dialects of other services."""
