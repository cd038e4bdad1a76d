"""Networks whose base, safe and unsafe versions are known."""
