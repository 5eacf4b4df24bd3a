"""Lightning DataModules, data sets and samplers."""
