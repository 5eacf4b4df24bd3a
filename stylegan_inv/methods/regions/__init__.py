"""Which region of an image is explained by which latent: superpixels, and the rules of SAM and DHR."""
