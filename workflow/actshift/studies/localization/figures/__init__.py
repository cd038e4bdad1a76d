"""Figures of localization."""
