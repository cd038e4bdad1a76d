"""Checkpoints: the only place that imports transformers."""
