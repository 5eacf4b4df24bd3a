"""Comparison of all methods on SynthFaces, and measurements of speed."""
