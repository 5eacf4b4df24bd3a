"""Prepare data: align, mask, pack and verify images."""
