"""The native calls, one noun a file."""
