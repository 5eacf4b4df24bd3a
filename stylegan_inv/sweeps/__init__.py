"""Sweeps: a process for each job, the summary at the end, and the same sweep for Weights & Biases."""
