"""The dashboard: pages on the API process, by the same functions that the native API calls."""
