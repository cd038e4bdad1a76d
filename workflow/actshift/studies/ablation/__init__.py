"""Ablation of the shift's directions: frames from activation stores, and lanes that ablate them."""
