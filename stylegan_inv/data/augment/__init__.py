"""Augmentation of what a discriminator sees."""
