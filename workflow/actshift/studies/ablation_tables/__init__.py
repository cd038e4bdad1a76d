"""The tables of Test 2, from the rows of its lanes."""
