"""Losses that compare photographs of faces by networks of the Feature-Style encoder."""
