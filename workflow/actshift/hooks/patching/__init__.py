"""Putting states or weights of one model into another."""
