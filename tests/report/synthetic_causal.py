"""Tables of the causal studies in the shape that the studies write, made up from a seed."""

import itertools

import numpy as np
import pandas as pd
from report.declared import declared
from report.synthetic_gap import calibration_tables, gap_summary, gap_table

KS = (1, 3, 5, 10, 20, 50)
FRAMES = ("naive", "template", "did", "template_harmless", "activation")
#: How fast refusal goes with k under each frame.
_SPEED = {"naive": 0.6, "template": 0.5, "did": 0.4, "template_harmless": 0.05, "activation": 0.12}
_BANDS = {"narrow": "2 3 4", "wide": "1 2 3 4"}
_N = {"n": 100, "clusters": 24}


def causal_tables(
    pairs: tuple[str, ...] = ("llama", "gemma", "qwen", "ministral"),
    *,
    d: int = 64,
    n_layers: int = 6,
    judged: bool = True,
) -> dict[str, pd.DataFrame]:
    """All tables of the four causal studies; unless `judged` nothing is known about topics."""
    rng = np.random.default_rng(1)
    sweep = _sweep(pairs, d, rng)
    if not judged:
        topical = [c for c in sweep if "complied" in c or "on_topic" in c or c == "p_gain"]
        sweep[topical] = np.nan
        sweep["status"] = sweep["status"].where(sweep["status"].str.startswith("wide"), "no judge")
    tables = {
        "refusal_effect": _effect(pairs, rng),
        "refusal_direction": _candidates(pairs, n_layers, rng),
        "ablation_sweep": sweep,
        "direction_ablation": (directions := _directions(pairs, rng)),
        "ordering": _ordering(directions),
        "substitution": _substitution(pairs, d, rng),
        "old_or_new": _old_or_new(pairs),
        "side_effects": _side_effects(sweep, rng),
        "judge": _judge(pairs),
        "ablation_published": _published(),
        "spectral_gap": gap_table(pairs, n_layers, d, rng),
        "spectral_gap_summary": gap_summary(pairs, n_layers),
        **calibration_tables(rng),
    }
    return declared(tables)


def _interval(name: str, rate: float, width: float = 0.08) -> dict[str, float]:
    low = -1.0 if "change" in name or "gain" in name else 0.0
    return {name: rate, f"{name}_low": max(rate - width, low), f"{name}_high": min(rate + width, 1)}


def _sweep(pairs: tuple[str, ...], d: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        _sweep_row(pair, place, protocol, band, frame, edit, k, d, rng)
        for place, pair in enumerate(pairs)
        for protocol in ("heldout", "fitted") for band in _BANDS
        for frame in (*FRAMES, "random") for edit in ("zero", "mean") for k in KS
        if k <= d and not (protocol == "fitted" and edit == "mean")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _sweep_row(
    pair: str, place: int, protocol: str, band: str, frame: str, edit: str, k: int, d: int,
    rng: np.random.Generator,
) -> dict:  # fmt: skip
    speed = _SPEED.get(frame, 0.01) * (1 + 0.5 * place) * (1.3 if band == "wide" else 1)
    refusal = float(np.clip(np.exp(-speed * k) + rng.uniform(-0.02, 0.02), 0, 1))
    complied = float(np.clip((1 - refusal) * (0.9 - 0.012 * k), 0, 1))
    low = float(np.clip(0.98 - 0.014 * k, 0, 1))
    random = {"random_refusal_low": max(low - 0.01 * k, 0), "random_refusal_median": low,
              "random_refusal_high": min(low + 0.02, 1)}  # fmt: skip
    broken = low < 0.88
    status = "wide: k > d/8" if k > d / 8 else "broken" if broken else "decided"
    gain = 0.0 if frame == "template_harmless" else complied - 0.1
    return {
        "pair": pair, "protocol": protocol, "band": band, "layers": _BANDS[band], "frame": frame,
        "edit": edit, "k": k, "d": d, "k_over_d": k / d,
        "draws": 20 if frame == "random" else np.nan,
        "energy_removed": 1 - np.exp(-0.1 * k), "energy_removed_harmless": 1 - np.exp(-0.09 * k),
        **_N, **_interval("refusal", refusal), "plain_refusal": 0.98,
        **_interval("refusal_change", refusal - 0.98), "p_sign_flip": 0.01,
        "p_mcnemar_independent": 0.001, "design_effect": 2.1,
        **_interval("complied", complied), "plain_complied": 0.01, "complied_gain": complied - 0.01,
        "complied_gain_over_harmless": gain, "complied_gain_low": gain - 0.08,
        "complied_gain_high": gain + 0.08, "p_gain": 0.004, "harmless_on_topic": 0.97 - 0.01 * k,
        "plain_harmless_on_topic": 0.99, "harmless_refusal": 0.01, **random,
        "beats_random": "20 of 20", "status": status, "why": "",
        "primary": (protocol, band, frame, edit, k) == ("heldout", "narrow", "template", "zero", 3),
    }  # fmt: skip


def _directions(pairs: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for place, pair in enumerate(pairs):
        effect = -0.5 * np.exp(-0.8 * np.abs(np.arange(10) - place % 3)) * (1 + 0.2 * place)
        effect = np.clip(effect + rng.uniform(-0.02, 0.02, 10), -0.98, 0.02)
        for band in _BANDS:
            for frame in ("template", "did"):
                for chosen in _sets():
                    alone = float(effect[[one - 1 for one in chosen]].sum())
                    change = alone if len(chosen) == 1 else max(0.9 * alone, -0.98)
                    rows.append(_set_row(pair, band, frame, chosen, change, alone))
    return pd.DataFrame(rows)


def _sets() -> list[tuple[int, ...]]:
    five = tuple(range(1, 6))
    return [
        *((one,) for one in range(1, 11)),
        *itertools.combinations(five, 2), *itertools.combinations(five, 4), five,
    ]  # fmt: skip


def _set_row(
    pair: str, band: str, frame: str, chosen: tuple[int, ...], change: float, alone: float
) -> dict:
    kind = {1: "single", 2: "pair", 4: "leave_one_out", 5: "all_five"}[len(chosen)]
    return {
        "pair": pair, "band": band, "frame": frame, "edit": "zero", "kind": kind,
        "directions": "+".join(map(str, chosen)), "k": len(chosen), **_N,
        **_interval("refusal", 0.98 + change), "plain_refusal": 0.98,
        **_interval("refusal_change", change), "p_sign_flip": 0.02, "p_mcnemar_independent": 0.01,
        "complied": -change / 2, "harmless_on_topic": 0.95, "energy_removed": 0.2 / len(chosen),
        "self_cosine_min": 0.99 if max(chosen) < 6 else 0.6,
        "interaction": change - alone if len(chosen) > 1 else np.nan, "judged": True,
        "status": "decided",
    }  # fmt: skip


def _ordering(directions: pd.DataFrame) -> pd.DataFrame:
    rows = []
    keys = ["pair", "band", "frame", "edit"]
    for key, part in directions[directions["kind"] == "single"].groupby(keys, sort=False):
        effect = part["refusal_change"].to_numpy()
        name = dict(zip(keys, key, strict=True))
        for i, j in itertools.combinations(range(10), 2):
            difference = effect[i] - effect[j]
            rows.append({
                **name, "test": "inversion", "stable": j < 5, "earlier": i + 1, "later": j + 1,
                "difference": difference, "low": difference - 0.1, "high": difference + 0.1,
                "p": 0.01, "p_holm": 0.04, "exceeds": bool(j < 5 and difference > 0.15),
                "kendall_tau": 0.33,
            })  # fmt: skip
        rows.append({
            **name, "test": "monotonicity", "stable": True, "earlier": 3, "later": 5,
            "difference": 0.02, "low": -0.05, "high": 0.08, "p": 0.4, "p_holm": 0.8,
            "exceeds": False, "kendall_tau": np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _side_effects(sweep: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for row in sweep[sweep["protocol"] == "heldout"].itertuples():
        refused = float(np.clip(0.2 * row.energy_removed * rng.uniform(0, 1), 0, 1))
        rows.append({
            "pair": row.pair, "experiment": "sweep", "frame": row.frame, "edit": row.edit,
            "band": row.band, "k": row.k, "directions": np.nan, "draws": row.draws, **_N,
            "over_refusal": refused, **_interval("over_refusal_change", refused),
            "p_sign_flip": 0.2, "on_topic": row.harmless_on_topic,
            **_interval("on_topic_change", row.harmless_on_topic - 0.99),
            "kl_first": 2 * row.energy_removed**2, "loss": 2.1 + row.energy_removed,
            "loss_change": row.energy_removed, "distinct_2": 0.8, "ended": 1.0,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _substitution(pairs: tuple[str, ...], d: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for pair, lane, band in itertools.product(pairs, ("substitution", "mode_toggle"), _BANDS):
        for frame, k in itertools.product(("template", "did", "template_harmless", "random"), KS):
            plain = 0.98 if lane == "substitution" else 0.02
            change = float(-0.02 * k * rng.random()) if lane == "substitution" else 0.01
            rows.append({
                "pair": pair, "lane": lane, "receiver": "tuned", "donor": "base", "band": band,
                "layers": _BANDS[band], "frame": frame, "k": k, "d": d, "k_over_d": k / d,
                "draws": 5 if frame == "random" else np.nan, "shift_share": min(0.05 * k, 1), **_N,
                **_interval("refusal", plain + change), "plain_refusal": plain,
                "donor_refusal": 1 - plain, **_interval("refusal_change", change),
                "share_of_gap": change / (1 - 2 * plain), "p_sign_flip": 0.3,
                "p_mcnemar_independent": 0.2, "complied": 0.1, "harmless_on_topic": 0.9,
                "harmless_refusal": 0.0, "random_refusal_low": 0.9, "random_refusal_median": 0.95,
                "random_refusal_high": 1.0, "status": "decided", "why": "",
                "primary": k == 3 and frame == "template",
            })  # fmt: skip
    return pd.DataFrame(rows)


def _old_or_new(pairs: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame([
        {"pair": pair, "direction": direction, "band": band, "edit": edit, "cos_with_tuned": cosine,
         "energy_removed": 0.1, **_N, **_interval("refusal", 0.98 + change), "plain_refusal": 0.98,
         **_interval("refusal_change", change), "p_sign_flip": 0.1, "p_mcnemar_independent": 0.1,
         "complied": -change, "harmless_on_topic": 0.95, "random_refusal_median": 0.98,
         "status": "decided", "why": ""}
        for pair in pairs for band in _BANDS for edit in ("zero", "mean")
        for direction, cosine, change in (
            ("tuned", 1.0, -0.4), ("base", 0.7, 0.0), ("new", 0.6, -0.3)
        )
    ])  # fmt: skip


def _judge(pairs: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame([
        {"pair": pair, "classifier": "topicality", "lane": "plain", "condition": "harmful",
         "keyword": keyword, "judge": judge, "n": count, "opener_then_complied": 0}
        for pair in pairs
        for keyword, judge, count in (("refused", "refused", 97), ("not refused", "complied", 3))
    ])  # fmt: skip


def _published() -> pd.DataFrame:
    sweeps = {
        ("llama", "naive", "narrow"): (0.97, 0.85, 0.8, 0.92, 0.66),
        ("llama", "naive", "wide"): (0.97, 0.75, 0.77, 0.7, 0.6),
        ("llama", "did", "narrow"): (0.97, 0.87, 0.69, 0.6, 0.5),
        ("gemma", "naive", "narrow"): (0.99, 0.0, 0.0, 0.0, 0.0),
        ("qwen", "template", "narrow"): (0.96, 0.92, 0.54, 0.3, 0.2),
    }
    rows = []
    for (family, matrix, band), rates in sweeps.items():
        name = {"family": family, "matrix": matrix, "band": band}
        for k, rate in zip((0, 1, 3, 5, 10), rates, strict=True):
            rows.append({
                **name, "kind": "cumulative", "k": k, "directions": np.nan, "refusal": rate,
                "low": rate - 0.05, "high": rate + 0.05, "random_refusal": 0.95 if k else np.nan,
            })  # fmt: skip
    for one, rate in enumerate((0.84, 0.99, 0.94, 0.94, 0.94), start=1):
        rows.append({
            "family": "llama", "matrix": "template", "band": "narrow", "kind": "single", "k": 1,
            "directions": str(one), "refusal": rate, "low": rate - 0.05, "high": rate + 0.03,
            "random_refusal": np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _effect(pairs: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for pair, condition in itertools.product(pairs, ("harmful", "harmless")):
        plain = 0.98 if condition == "harmful" else 0.01
        for edit, control in itertools.product(("ablate", "add", "subtract"), ("", "random")):
            effect = rng.uniform(0.4, 0.95)
            effect *= -1 if edit != "add" else 1
            rate = plain if control else float(np.clip(plain + effect, 0, 1))
            rows.append({
                "pair": pair, "condition": condition, "edit": edit, "control": control or np.nan,
                "draws": 20 if control else np.nan, **_N, "refused": rate, "plain_refused": plain,
                "change": rate - plain, "low": rate - plain - 0.1, "high": rate - plain + 0.1,
                "p_sign_flip": 0.01, "p_mcnemar_independent": 0.01,
                "draws_low": max(rate - 0.05, 0) if control else np.nan,
                "draws_high": min(rate + 0.05, 1) if control else np.nan,
                "on_topic": (1 - rate) * 0.8, "kl_first": 0.5, "ended": 1.0,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _candidates(pairs: tuple[str, ...], n_layers: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for pair in pairs:
        for layer, position in itertools.product(range(1, n_layers), range(-5, 0)):
            rows.append({
                "pair": pair, "layer": layer, "position": position, "norm": 0.1 * layer,
                "bypass": rng.normal(), "induce": rng.normal(-3), "kl": rng.uniform(0, 0.3),
                "passes_kl": True, "passes_induce": layer > 1, "passes_layer": layer < n_layers - 1,
                "chosen": (layer, position) == (2, -1),
                "verdict": "passes" if (layer, position) == (2, -1) else np.nan,
                "n_fit_harmful": 128, "n_fit_harmless": 128,
                "n_select_harmful": 32, "n_select_harmless": 32,
            })  # fmt: skip
    return pd.DataFrame(rows)
