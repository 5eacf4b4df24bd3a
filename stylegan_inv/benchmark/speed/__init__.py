"""Measurements of speed: synthesis, operations, data loading."""
