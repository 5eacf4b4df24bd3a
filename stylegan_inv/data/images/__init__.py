"""Decoding, resizing, reading and writing of images."""
