"""File formats of generators, read without executing anything."""
