"""Tables of localization."""
