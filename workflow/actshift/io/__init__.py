"""Activation stores, tables, manifests."""
