"""Edit images through their latent codes."""
