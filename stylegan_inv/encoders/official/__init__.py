"""The papers' encoder checkpoints."""
