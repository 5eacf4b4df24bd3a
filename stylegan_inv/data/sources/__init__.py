"""Where encoded images come from: folders, zips, LMDBs, shards."""
