"""Generators and renderings that are changed for one image or one domain."""
