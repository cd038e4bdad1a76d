"""Tables of study C: what patches, controls, swaps and distances say, with intervals by cluster."""
