"""Quality of methods on SynthFaces: trainings, scores, estimates, claims, tables and figures."""
