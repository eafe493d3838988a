"""Cost: events, budgets, calibration, and the report."""
