"""Data: image files, folders, the SynthFaces world, DataModules and samplers."""
