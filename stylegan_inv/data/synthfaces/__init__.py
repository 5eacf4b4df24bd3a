"""SynthFaces: procedural face portraits with ground truth."""
