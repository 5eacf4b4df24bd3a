"""Score a method, or images, under one protocol."""
