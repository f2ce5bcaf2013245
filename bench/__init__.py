"""Measurements, always as ratios or figures of one run, with the peer beside it; nothing here is a test."""
