"""One function a stage verb; the only code that composes maths, models, hooks and io."""
