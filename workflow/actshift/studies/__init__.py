"""One module a study: which conditions, which tables."""
