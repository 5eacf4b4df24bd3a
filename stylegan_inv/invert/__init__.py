"""Invert images: photographs to latent codes and reconstructions."""
