"""Study C, before any model runs: folds, partners, bases and the lanes of every experiment."""
