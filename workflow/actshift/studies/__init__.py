"""One module a study: which conditions, which tables, which claims. Stores in, tables out."""
