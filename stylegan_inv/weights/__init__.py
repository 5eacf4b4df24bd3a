"""Weights made by others: a table, and their download."""
