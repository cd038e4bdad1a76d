"""Figures and the page, from tables alone."""
