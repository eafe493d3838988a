"""Noise: one mechanism a file, each with its guarantee."""
