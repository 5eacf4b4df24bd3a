"""Generators changed for one image or one domain."""
