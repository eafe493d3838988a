"""Experiments on the product: workloads and measures."""
