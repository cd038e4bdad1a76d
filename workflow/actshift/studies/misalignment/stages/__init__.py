"""Stages of misalignment that a pair runs."""
