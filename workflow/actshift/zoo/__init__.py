"""Tiny model families trained from scratch."""
