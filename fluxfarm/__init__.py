"""Fluxfarm: the words of the trade, the client and the command line of a FLUX.2 rendering farm."""

__version__ = "0.1.0"
