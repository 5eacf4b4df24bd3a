"""The fast path of a frozen generator."""
