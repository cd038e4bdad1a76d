"""Example: how far tuning moves the residual stream."""
