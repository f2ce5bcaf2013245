"""One pure pair of functions a dialect: its request to a RenderRequest, a job to its reply."""
