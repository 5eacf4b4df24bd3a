"""Image -> codes, and the small face networks of the embedded world. Plain ``nn.Module``s."""
