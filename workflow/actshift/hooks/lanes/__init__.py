"""Running edited copies of a model side by side."""
