"""Study misalignment: insecure-code adapters, their direction, steering with it and maps of it."""
