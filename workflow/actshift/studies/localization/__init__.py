"""Localization of a preference in the layers: patches, controls and block swaps."""
