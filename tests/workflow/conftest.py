"""The example study belongs to a copy of the tree, where its own test runs."""

collect_ignore = ["example_study"]
