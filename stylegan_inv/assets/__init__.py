"""The embedded networks (safetensors) and their cards: how each was made, and its figures."""
