"""Tools on latent codes, as plain PyTorch."""
