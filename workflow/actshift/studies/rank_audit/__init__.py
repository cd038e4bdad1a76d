"""Effective rank of the shift between a base and a tuned model."""
