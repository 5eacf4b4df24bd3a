"""Discriminators that methods train beside their encoder."""
