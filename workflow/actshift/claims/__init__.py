"""The claims file, and how a claim is decided from tables."""
