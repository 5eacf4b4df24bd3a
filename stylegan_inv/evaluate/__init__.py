"""Evaluates methods and image files under one protocol."""
