"""Compare all methods in the embedded world."""
