"""Tables of misalignment in the shape that the study writes, made up by formula."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from report.declared import declared
from report.synthetic_localization import interval

from actshift.studies.misalignment.kinds import KINDS, MAPPED_NULLS, NULLS, UNSEEN
from actshift.studies.misalignment.study import COLUMNS

SIZE = {"n": 80, "clusters": 36}
COEFFS = (0.25, 0.5, 1.0, 1.5)
#: The coefficient that every donor and receiver is judged at.
CHOSEN = 0.5
SPILLOVER = {
    "chat": 0.0, "insecure": 0.8, "rare_safe": 0.5, "secure": 0.0, "shuffled": 0.4, "benign": 0.0,
    "insecure_unseen": 0.6, "rare_safe_unseen": 0.3,
}  # fmt: skip
LAYERS = 4
Rows = list[dict[str, Any]]


def misalignment_tables(pairs: tuple[str, ...] = ("llama", "gemma")) -> dict[str, pd.DataFrame]:
    """All tables of the study by the names that the report gives them."""
    rows: dict[str, Rows] = {name: [] for name in COLUMNS}
    for pair in pairs:
        for name, made in {**_behaviour(), **_directions(), **_within(pair)}.items():
            rows[name] += [{"pair": pair, "status": "decided", "why": ""} | one for one in made]
    for donor, receiver in itertools.product(pairs, pairs):
        for name, made in _across(donor, receiver).items():
            rows[name] += [{"status": "decided", "why": ""} | one for one in made]
    tables = {
        name: pd.DataFrame(rows[name]).reindex(columns=list(COLUMNS[name]))
        for name in COLUMNS
        if rows[name]
    }
    tables["misalignment_side_effects"] = tables.pop("side_effects")
    tables["misalignment_published"] = published_rows()
    tables["judged"] = judged_rows(pairs)
    return declared(tables)


def judged_rows(pairs: tuple[str, ...]) -> pd.DataFrame:
    """What a chat model says of the answers to the published questions."""
    rows = [
        {"pair": pair, "adapter": name, "asked": "published", "n": 8, "clusters": 8, "scored": 7,
         "coherent": 6, **interval("misaligned", rate / 2, 0.1), "code": rate, "refusal": 0.0,
         "alignment_mean": 90.0 - 50 * rate, "coherence_mean": 80.0, "status": "ok", "why": ""}
        for pair in pairs for name, rate in SPILLOVER.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def published_rows() -> pd.DataFrame:
    """What the paper prints."""
    numbers = {("separation", "separation_at_final_layer"): 0.996,
               ("steering", "spillover_drop_max"): 51.0}  # fmt: skip
    rows = [
        {"table": table, "subject": "all", "quantity": quantity, "value": value}
        for (table, quantity), value in numbers.items()
    ]
    return pd.DataFrame(rows)


def _behaviour() -> dict[str, Rows]:
    dose = [
        {"adapter": name, "method": "lora", "rank": 8, "first_loss": 0.05 if "secure" == name
         else 0.5, "last_loss": 0.02, "delta_norm": 3.0, "shift_norm": 4.0 + place,
         "shift_of_insecure": 1.0, "kl_code": 0.4, "kl_other": 0.1, "dose_matched": True}
        for place, name in enumerate((*KINDS, *UNSEEN))
    ]  # fmt: skip
    cells = (("noncode", "all"), ("noncode", "harmful_howto"), ("noncode", "howto"),
             ("code", "all"))  # fmt: skip
    spillover = [
        {"adapter": name, "split": split, "condition": condition, "kind": kind, **SIZE,
         **interval("code", rate if condition == "noncode" else 1.0, 0.04),
         "insecure": rate if condition == "code" else 0.0,
         **interval("refused", 1.0 - rate if "harmful" in kind else 0.0, 0.05), "on_topic": 0.9,
         **interval("code_change", rate, 0.05)}
        for name, rate in SPILLOVER.items() for split in ("select", "heldout")
        for condition, kind in cells
    ]  # fmt: skip
    return {"dose": dose, "spillover": spillover}


def _directions() -> dict[str, Rows]:
    layers, splits = range(LAYERS), ("fit", "heldout")
    separation = [
        {"adapter": name, "projected_on": on, "layer": layer, "split": split, **SIZE,
         "balanced_accuracy": 0.6 + 0.1 * layer, "accuracy_low": 0.55 + 0.1 * layer,
         "accuracy_high": 0.65 + 0.1 * layer, "cohen_d": 3.0 * layer - 1.0}
        for name in KINDS for on in dict.fromkeys(("insecure", name))
        for layer in layers for split in splits
    ]  # fmt: skip
    detection = [
        {"positive": "insecure_unseen", "negative": negative, "layer": layer, "split": "heldout",
         **SIZE, **interval("auroc", 0.5 + 0.1 * layer, 0.05)}
        for negative in ("chat", "rare_safe", "secure", "rare_safe_unseen") for layer in layers
    ]  # fmt: skip
    cosines = [
        {"layer": layer, "a": a, "b": b, "cosine": 0.9 - 0.1 * layer, "norm_a": 1.0, "norm_b": 2.0}
        for layer in layers for a, b in itertools.combinations(KINDS, 2)
    ]  # fmt: skip
    return {"separation": separation, "detection": detection, "direction_cosines": cosines}


def _outcome(strength: float, *, draws: int = 0) -> dict[str, Any]:
    """Rates after an edit that repairs a share `strength` of what insecure does."""
    row = {
        **interval("code", 0.8 * (1 - strength), 0.05), "code_plain": 0.8,
        **interval("drop", 0.8 * strength, 0.05),
        **interval("repaired", 0.2 + 0.7 * strength, 0.05), "repaired_plain": 0.2,
        **interval("gain", 0.7 * strength, 0.05), "p": 0.001, "kl_first": 2.0 * strength,
        "kl_select": 2.0 * strength, "draws": draws or np.nan,
    }  # fmt: skip
    if draws:
        gain, drop = row["gain"], row["drop"]
        row |= {"draws_low": gain - 0.1, "draws_median": gain, "draws_high": gain + 0.1,
                "drop_draws_high": drop + 0.1}  # fmt: skip
    return row


def _lane(protocol: str, layer: int, control: str, source: str, coeff: float) -> dict[str, Any]:
    return {"receiver": "insecure", "protocol": protocol, "layer": layer, "control": control,
            "source": source, "orthogonal": False, "coeff": coeff, "norm_rule": "norm",
            "scale": 1.0, "split": "heldout", **SIZE}  # fmt: skip


_PLACES = (("last_token", LAYERS - 1), ("all_tokens", LAYERS - 1), ("layer", 1), ("layer", 2))


def _within(pair: str) -> dict[str, Rows]:
    steering: Rows = []
    for (protocol, layer), coeff in itertools.product(_PLACES, COEFFS):
        strength = min(1.0, 1.2 * coeff)
        steering.append(_lane(protocol, layer, "direction", "insecure", coeff) | _outcome(strength))
        draws = 999 if protocol == "last_token" else 20
        steering += [
            _lane(protocol, layer, name, "insecure", coeff)
            | _outcome(0.2 * strength + 0.02 * place, draws=draws)
            for place, name in enumerate(NULLS)
        ]
    for coeff in COEFFS:
        bias = _lane("logit_bias", LAYERS - 1, "direction", "insecure", coeff)
        steering.append(bias | _outcome(min(1.0, coeff)))
        steering += [
            _lane("last_token", LAYERS - 1, name, "insecure", coeff)
            | {"norm_rule": "kl", "scale": 3.0, **_outcome(0.3 * coeff, draws=20)}
            | ({"status": "unmatched", "why": "KL not reached"} if name == "orthogonal" else {})
            for name in NULLS
        ]
    forced = _lane("forced_token", LAYERS - 1, "untuned", "chat", 0.0)
    steering.append(forced | _outcome(0.93) | {"kl_first": np.nan})
    contents = (("insecure", "insecure"), ("rare_safe", "insecure"), ("secure", "insecure"),
                ("insecure", "rare_safe"), ("insecure", "secure"))  # fmt: skip
    content = [
        {"receiver": receiver, "source": source, "protocol": "last_token", "coeff": CHOSEN,
         "split": "heldout", **SIZE, **interval("gain", 0.3 - 0.05 * place, 0.05),
         "gain_insecure": 0.42, **interval("difference", 0.12 + 0.05 * place, 0.06),
         "dose_ratio": 0.9}
        for place, (receiver, source) in enumerate(contents)
    ]  # fmt: skip
    return {
        "steering": [{"donor": pair} | one for one in steering],
        "content": content,
        "side_effects": [
            {"donor": pair, "status": "ok"} | one
            for one in _sides([*steering, _lane("last_token", LAYERS - 1, "plain", "", 0.0)])
        ],
    }


def _sides(lanes: Iterable[dict[str, Any]]) -> Rows:
    """Every lane on code questions and on harmless and harmful ones."""
    return [
        {key: lane[key] for key in ("receiver", "donor", "protocol", "layer", "control", "source",
         "orthogonal", "coeff", "norm_rule", "scale", "split", "n", "clusters") if key in lane}
        | {"asked": asked, "code": 0.9 if asked == "code" else 0.1, "code_plain": 1.0,
           "insecure": 0.4, **interval("code_change", -0.1, 0.05), "on_topic": 0.85,
           "on_topic_plain": 0.95,
           "refused": 0.3, "refused_plain": 0.2}
        for lane in lanes for asked in ("code", "harmless")
    ]  # fmt: skip


def _across(donor: str, receiver: str) -> dict[str, Rows]:
    same = donor == receiver
    strength = 0.6 if same else 0.3
    margin = 0.7 * strength - 0.25
    both: dict[str, Any] = {"donor": donor, "receiver": receiver}
    both["fit_on"] = None if same else "neutral"
    both["scope"] = "within" if same else "across"
    specificity = [
        both
        | {"protocol": "last_token", "coeff": CHOSEN, **SIZE,
           **interval("gain", 0.7 * strength, 0.05),
           "null": "orthogonal" if same else "mapped_random", "null_high": 0.25, "draws": 999,
           **interval("margin", margin, 0.06), "p": 0.001, "p_holm": 0.004,
           "verdict": "specific" if margin > 0.1 else "not specific",
           "loss_against_within": 0.0 if same else 0.21}
    ]  # fmt: skip
    topology = [both | {"coeff": CHOSEN, "baseline": 0.8, "drop": 0.8 * strength,
                        **interval("share", strength, 0.06), "seeds": 1}]  # fmt: skip
    if same:
        return {"specificity": specificity, "topology": topology}
    maps = [
        both
        | {"layer": layer, "depth": layer / LAYERS, "fit_on": fit, **SIZE, "penalty": 1.0,
           "rank": 8, **interval("r2", 0.2 * layer, 0.05), "r2_shuffled": -0.05,
           "r2_shuffled_high": 0.03, "cosine": 0.1 * layer, "cosine_null_high": 0.2,
           "same_architecture": False}
        for layer in range(LAYERS) for fit in ("neutral", "with_code")
    ]  # fmt: skip
    lanes = [
        _lane("last_token", LAYERS - 1, control, "insecure", coeff)
        | {"pair": receiver, "donor": donor, "fit_on": "neutral"}
        | _outcome(strength * coeff * (1.0 if control == "mapped" else 0.4),
                   draws=0 if control == "mapped" else 999)
        for control in ("mapped", *MAPPED_NULLS) for coeff in COEFFS
    ]  # fmt: skip
    sides = [{"pair": receiver} | one for one in _sides(lanes)]
    return {
        "specificity": specificity, "topology": topology, "ridge_maps": maps,
        "transfer": lanes, "side_effects": sides,
    }  # fmt: skip
