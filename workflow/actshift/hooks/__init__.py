"""Torch only: record or edit a site of the residual stream."""
