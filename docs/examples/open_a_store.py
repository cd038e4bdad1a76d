# %%
"""Open two activation stores and plot the shift of one layer.

Runs as a script, or cell by cell in VS Code, PyCharm or Jupyter (through jupytext):
`python docs/examples/open_a_store.py [results/<run>/activations] [layer]`
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

activations = Path(sys.argv[1] if len(sys.argv) > 1 else "results/demo/activations")
layer = int(sys.argv[2]) if len(sys.argv) > 2 else -1

# %% [markdown]
# A store is a zarr v3 group with named axes: it opens with names and coordinates, by zarr 3.0 and
# xarray 2024.10 or later (zarr 2 says "No such file"). `position` -1 is the last prompt token. Rows
# follow one order for base and tuned, so they can be subtracted; xarray checks it by `prompt_id`.

# %%
base, tuned = (
    xr.open_zarr(activations / f"llama.{role}" / "harmful.chat" / "acts.zarr")
    for role in ("base", "tuned")
)
print(tuned)
print({key: tuned.attrs[key] for key in ("source", "template", "position_rule", "dtype")})

# %% [markdown]
# The shift of one layer at the last prompt token, and its first two principal components.

# %%
last = {"position": -1}
xr.testing.assert_equal(base.prompt_id, tuned.prompt_id)
shift = (tuned.resid_post - base.resid_post).sel(last).isel(layer=layer).values
left, values, _ = np.linalg.svd(shift - shift.mean(axis=0), full_matrices=False)

# %%
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
points = axes.scatter(*(left[:, :2] * values[:2]).T, c=tuned.n_tokens, cmap="cividis", s=14)
figure.colorbar(points, label="tokens in the prompt")
shown = int(tuned.layer[layer])
axes.set(title=f"llama: shift after block {shown}, centred", xlabel="first PC", ylabel="second PC")
out = activations.parent / f"shift_layer_{shown}.png"
figure.savefig(out, dpi=150)
print(out)
