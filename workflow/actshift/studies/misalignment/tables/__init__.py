"""Tables of misalignment."""
