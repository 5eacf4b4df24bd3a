"""Weights published by others: a table of them, and their download."""
