"""Reading models: recorded states, scores of texts, and what a model is made of."""
