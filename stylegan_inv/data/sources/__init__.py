"""Sources of encoded image files: folders, zips, LMDBs and tar shards."""
