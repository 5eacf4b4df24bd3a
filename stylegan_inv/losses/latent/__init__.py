"""Losses of latent codes: discriminator, norms, style mixing."""
