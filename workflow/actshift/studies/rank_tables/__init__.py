"""The tables of the rank audit, one module a group of tables."""
