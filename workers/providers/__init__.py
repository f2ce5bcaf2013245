"""Where a render can happen: the local pipeline, later the remote services; one file each."""
