"""Preparation of data: aligns, masks, packs and verifies images."""
