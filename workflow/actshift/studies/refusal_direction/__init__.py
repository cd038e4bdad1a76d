"""The direction of refusal of a tuned model."""
