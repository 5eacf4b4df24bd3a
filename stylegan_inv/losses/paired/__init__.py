"""Losses of generators that are trained on images with known latent codes."""
