"""Lightning DataModules, datasets and samplers."""
