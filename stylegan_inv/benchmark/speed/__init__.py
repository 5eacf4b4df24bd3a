"""Time the parts: synthesis, operations, data loading."""
