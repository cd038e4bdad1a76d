"""actshift: what tuning did inside a language model."""

__version__ = "0.1.0"
