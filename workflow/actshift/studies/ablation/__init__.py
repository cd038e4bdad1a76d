"""Test 2 of the rank audit: frames from activation stores, and the lanes that ablate them."""
