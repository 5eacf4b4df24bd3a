"""Edits: what is done to codes, and which pictures show it. Each is a class that conf/edit/*.yaml names."""
