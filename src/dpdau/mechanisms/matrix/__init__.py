"""Correlated noise for many releases under one charge: classes, covariance, lattice, strategies."""
