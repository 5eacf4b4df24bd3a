"""What the config of a stranger's run may name."""
