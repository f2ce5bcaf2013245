"""Trains the small FLUX.2 model that ships with the farm: ``python -m training``; see README.md here."""
