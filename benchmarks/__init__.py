"""The benchmark: the product beside what a user would otherwise run, in the same run."""
