"""Tables of ablation."""
