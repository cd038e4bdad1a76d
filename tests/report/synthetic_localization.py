"""Tables of localization in the shape that the study writes, made up by formula."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from report.declared import declared

from actshift.studies.localization.study import COLUMNS

CONDITIONS = {"harmful": 90.0, "harmless": -40.0}
POSITIONS = ("all", "prompt", "completion", "last_prompt")
_N = {"n": 40, "clusters": 36}


def interval(name: str, value: float, width: float) -> dict[str, float]:
    """A value with its ends."""
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def localization_tables(
    pairs: tuple[str, ...] = ("llama", "gemma"), *, n_layers: int = 4
) -> dict[str, pd.DataFrame]:
    """All tables of the study by the names that the report gives them."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for pair, (condition, gap) in itertools.product(pairs, CONDITIONS.items()):
        cell = {
            "pair": pair,
            "condition": condition,
            "length": "natural",
            **_N,
            "status": "decided",
            "why": "",
            **interval("gap", gap, 5.0),
        }
        for name, made in _patched(gap, n_layers).items():
            rows[name] += [cell | one for one in made]
        for name, made in _swapped(n_layers).items():
            rows[name] += [cell | one for one in made]
        for name, made in _attributed(n_layers).items():
            rows[name] += [cell | one for one in made]
    # The cell of a pair is wider than some tables.
    tables = {name: pd.DataFrame(rows[name], columns=list(COLUMNS[name])) for name in COLUMNS}
    tables["localization_summary"] = tables.pop("summary")
    tables["localization_published"] = published_rows()
    tables["preference_margins"] = margins(pairs)
    return declared(tables)


def margins(pairs: tuple[str, ...]) -> pd.DataFrame:
    """Margins of both models by condition."""
    return pd.DataFrame([
        {"pair": pair, "condition": condition, **_N, "margin_base": 0.0, "margin_tuned": gap,
         **interval("gap", gap, 5.0)}
        for pair, (condition, gap) in itertools.product(pairs, CONDITIONS.items())
    ])  # fmt: skip


def published_rows() -> pd.DataFrame:
    """The paper's numbers: a coefficient a layer, table 2, and the peak."""
    numbers = {
        **{("lasso", f"coefficient_layer_{layer}"): -0.18 * (layer == 8) for layer in range(16)},
        ("low_rank", "mean_delta_logp_rank_4_layer_9"): 161.6,
        ("low_rank", "mean_delta_logp_full_layer_9"): 160.3,
        ("low_rank", "variance_ratio_rank_4"): 0.986,
        ("patching", "peak_layer"): 8.0,
    }
    rows = [
        {"table": table, "subject": "llama-3.2-1b", "quantity": quantity, "value": value}
        for (table, quantity), value in numbers.items()
    ]
    return pd.DataFrame(rows)


def shape(positions: str, layer: int, n_layers: int) -> float:
    """Share of the gap: rising where positions are cumulative, a hill at the last prompt token."""
    depth = (layer + 1) / n_layers
    return 0.8 * depth if positions != "last_prompt" else 0.6 * np.sin(np.pi * depth * 0.9)


def _effect(share: float, goal: float) -> dict[str, float]:
    """An effect towards a donor whose margin is `goal` above the receiver's."""
    return {**interval("effect", share * goal, 3.0), **interval("share", share, 0.05)}


_OF_SOURCE = {"donor": 1.0, "chosen": 0.7, "rejected": -0.4, "contrast": 0.9}
_OF_PATCH = {"identity": 0.0, "shuffled": 0.9, "other_condition": 0.2, "noise": 0.3, "random": 0.05}


def _patched(gap: float, n_layers: int) -> dict[str, list[dict[str, Any]]]:
    layers, ways = range(n_layers), {"forward": gap, "reverse": -gap}
    cells = itertools.product(ways.items(), POSITIONS, layers)
    patching = [
        {"direction": way, "positions": place, "layer": layer,
         **_effect(shape(place, layer, n_layers), size)}
        for (way, size), place, layer in cells
    ]  # fmt: skip
    controls = [
        {"direction": "forward", "control": name, "positions": place, "layer": layer, "draws": 20,
         **_effect(of * shape(place, layer, n_layers), gap), "draws_low": -2.0,
         "draws_median": 1.0, "draws_high": 4.0, **interval("of_patch", of, 0.05)}
        for name, of in _OF_PATCH.items() for place in ("all", "last_prompt") for layer in layers
    ]  # fmt: skip
    interpolation = [
        {"direction": way, "positions": "all", "layer": layer, "alpha": alpha,
         **interval("step", 5.0 if alpha else np.nan, 1.0),
         **_effect(alpha * shape("all", n_layers - 1 if layer is None else layer, n_layers), size)}
        for way, size in ways.items() for layer in (*layers, None) for alpha in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    sources = [
        {"direction": "forward", "source": source, "positions": "completion", "layer": layer,
         "length": "matched", **_effect(of * shape("all", layer, n_layers), gap)}
        for source, of in _OF_SOURCE.items()
        for layer in layers
    ]  # fmt: skip
    return {
        "patching": patching, "controls": controls, "interpolation": interpolation,
        "sources": sources, "low_rank": _low_rank(n_layers), "positions": _places(ways),
    }  # fmt: skip


def _low_rank(n_layers: int) -> list[dict[str, Any]]:
    speeds = {"shift": 0.5, "states": 0.3, "base_states": 0.2, "random": 0.02}
    return [
        {"direction": "forward", "positions": "all", "basis": basis, "keep_rest": keep,
         "rank": rank, "layer": layer, "d": 64, "k_over_d": rank / 64,
         **interval("of_full", 1 - np.exp(-speed * rank), 0.05),
         "noise_of_full": 0.3, "share_of_variance": 1 - np.exp(-2 * speed * rank)}
        for basis, speed in speeds.items() for keep in (True, False) for rank in (1, 4, 16)
        for layer in (*range(n_layers), None)
    ]  # fmt: skip


def _places(ways: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"direction": way, "positions": place, "peak_layer": 1 if place == "last_prompt" else 3,
         **interval("peak", 0.6 * abs(size), 4.0),
         **interval("last_layer", 0.2 * abs(size), 3.0),
         **interval("edge_over_peak", 0.33, 0.1),
         "interior": int(place == "last_prompt"), "peak_share": 0.6}
        for way, size in ways.items() for place in POSITIONS
    ]  # fmt: skip


def _swapped(n_layers: int) -> dict[str, list[dict[str, Any]]]:
    units = [("embeddings", None), *(("block", layer) for layer in range(n_layers)), ("head", None)]
    parts = [(part, layer) for part in ("attention", "mlp") for layer in range(n_layers)]
    swaps = [
        {"operation": operation, "part": part, "layer": layer,
         **interval("share", 0.1 + 0.05 * (layer or 0), 0.03)}
        for operation in ("insert", "remove") for part, layer in [*units, *parts]
    ]  # fmt: skip
    few = [
        {"statistic": "n_eff_over_layers", "operation": operation,
         **interval("value", share * (n_layers + 2) / n_layers, 0.1)}
        for operation, share in {"insert": 0.7, "remove": 0.8}.items()
    ]  # fmt: skip
    summary = [
        *few,
        *(
            {
                "statistic": "n_eff_over_units",
                "operation": operation,
                **interval("value", share, 0.1),
            }
            for operation, share in {"insert": 0.7, "remove": 0.8}.items()
        ),
    ]
    return {"block_swap": swaps, "summary": summary}


MODELS = (("lasso", "contiguous"), ("lasso", "cluster"), ("elastic_net", "cluster"))
TARGETS = ("gap", "gap_per_token", "patch_effect")


def _attributed(n_layers: int) -> dict[str, list[dict[str, Any]]]:
    layers = range(n_layers)
    places = ("last_prompt", "last_chosen", "last_rejected")
    cell = {"position": "last_chosen"}
    return {
        "distances": [
            {"position": place, "layer": layer, **interval("norm", 2.0 + layer, 0.4)}
            for place in places for layer in layers
        ],
        "probe": [
            {**cell, "target": target, "layer": layer,
             **interval("r2_out", 0.05 * layer - 0.1, 0.1)}
            for target in TARGETS for layer in layers
        ],
        "lasso": [
            {**cell, "target": target, "model": model, "folds": folds, "layer": layer,
             "coefficient": 0.4 if layer == 1 else 0.0, "support": 1,
             **interval("r2_out", -0.03, 0.06)}
            for target in TARGETS for model, folds in MODELS for layer in layers
        ],
        "lasso_stability": [
            {**cell, "target": target, "layer": layer, "half_samples": 500,
             "frequency": 0.7 if layer == 1 else 0.2, "null_frequency": 0.15, "null_95": 0.5,
             "peak_layer": 2, "stable_layers": 1, "distance_to_peak": 1}
            for target in TARGETS for layer in layers
        ],
    }  # fmt: skip
