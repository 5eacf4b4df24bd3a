"""Operations on latent codes: directions, truncation, mixing, interpolation, noise, statistics."""
