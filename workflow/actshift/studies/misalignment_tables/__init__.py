"""Tables of study B, made from the rows of every pair."""
