"""Encoders that predict codes and a feature map of the generator, and the networks that change such maps."""
