"""Finding faces, and aligning them as in FFHQ."""
