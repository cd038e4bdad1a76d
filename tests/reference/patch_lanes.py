"""Lanes of patches for tests."""

from actshift.patching import PatchLane


def every_layer(name, edit, *, n_layers, positions="all", head="receiver"):
    """The same lane at each layer, named `<name>@<layer>`; the edit may depend on the layer."""
    return [
        PatchLane(
            f"{name}@{layer}", layer, edit(layer) if callable(edit) else edit, positions, head
        )
        for layer in range(n_layers)
    ]
