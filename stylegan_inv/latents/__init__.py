"""Latent codes: statistics, directions, mixing, interpolation."""
