"""Figures of misalignment."""
