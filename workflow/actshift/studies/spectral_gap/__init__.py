"""The spectral gap between a tuned model and its unsafe references."""
