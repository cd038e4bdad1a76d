"""Ridge maps between the untuned models of all pairs: stores in, maps and mapped vectors out.

No model is loaded: everything comes from the stores and directions that rule spillover left.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool
from safetensors.numpy import save_file

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import write_manifest
from actshift.io.missed import has_numbers, why_without
from actshift.io.store import ActivationStore
from actshift.io.tables import write_table
from actshift.models.on_disk import cached_snapshot
from actshift.models.sources import HubSource, LocalSource, ZooSource, parse_source
from actshift.prompts.records import Prompt, content_hash, read_prompts
from actshift.studies.misalignment.kinds import INSECURE, UNTUNED
from actshift.studies.misalignment.lanes import DIRECTIONS, read_directions
from actshift.studies.misalignment.maps import (
    FIT_ON,
    MAPPED,
    TABLE,
    FitOn,
    LayerMap,
    Side,
    donor_layer,
    fit_map,
    fit_source,
    folder_of,
    mapped_name,
    write_pair,
)
from actshift.studies.misalignment.study import COLUMNS, Misalignment
from actshift.vocab import CODE, NEUTRAL

#: States that rule spillover leaves of the untuned model.
NEUTRAL_STORE = f"states/{UNTUNED}.neutral"
#: Too few clusters for folds inside folds.
_FEWEST = 3
_Found = dict[tuple[str, str, FitOn, int], LayerMap]


def ridge_maps(
    *,
    pairs: Mapping[str, Path],
    neutral: Path,
    families: Mapping[str, str],
    settings: Misalignment,
    seed: int,
    out: Path,
) -> None:
    """Fit every layer's map for every ordered pair of models.

    The prompts, the penalty's grid and its choice are ours: the published text does not tell its.

    Args:
        pairs: Folder `spillover` of each pair, in the order wanted; a pair whose job failed or
            whose gate is missed is left out.
        neutral: Prompt set of the conditions neutral and code.
        families: Source of each pair's tuned model, or of what an adapter made it from.
        settings: Of the study.
        seed: Of folds' intervals, shuffled pairings and random directions.
        out: Folder to make: `maps.csv`, `mapped.safetensors`, and a folder an ordered pair.

    Raises:
        UserError: Too few neutral prompts, clusters or folds, or files that do not fit together.

    Source: arXiv 2606.20225 (ridge maps between the models' activation spaces).
    """
    prompts = read_prompts(neutral)
    members = _members(prompts, settings.map_folds, neutral)
    missing = [name for name, folder in pairs.items() if not has_numbers(folder)]
    sides = {
        name: _open(name, folder, families[name], prompts)
        for name, folder in pairs.items()
        if name not in missing
    }
    found = _all_maps(list(sides.values()), prompts, members, settings, seed)
    shared = {
        **{"prompts": content_hash(prompts), "folds": settings.map_folds},
        **{"draws": settings.final_draws, "seed": seed},
    }
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        rows = [one.row for one in found.values()]
        write_table(pd.DataFrame(rows, columns=list(COLUMNS["ridge_maps"])), partial / TABLE)
        save_file(_mapped(found), partial / MAPPED)
        for donor, receiver in permutations(sides, 2):
            own = {key[2:]: one for key, one in found.items() if key[:2] == (donor, receiver)}
            folder = folder_of(partial, donor, receiver)
            write_pair(folder, (sides[donor], sides[receiver]), own, shared)
        facts = {"pairs": list(sides), "missing": missing}
        write_manifest(partial, kind="ridge maps", facts=facts)
    for name in missing:
        print(f"ridge_maps: {name} is left out: {why_without(pairs[name])}")
    _say(found)


def _members(
    prompts: Sequence[Prompt], folds: int, where: Path
) -> dict[FitOn, Bool[np.ndarray, " prompt"]]:
    """Which prompts each map is fitted on."""
    conditions = np.array([prompt.condition for prompt in prompts])
    plain = conditions == NEUTRAL
    clusters = len({prompt.cluster for prompt in prompts if prompt.condition == NEUTRAL})
    if clusters < _FEWEST:
        raise UserError(
            f"{where}: {clusters} clusters of condition '{NEUTRAL}'; maps need {_FEWEST} or more"
        )
    if folds < _FEWEST:
        raise UserError(
            f"misalignment.map_folds: {folds}; a penalty is chosen inside each fold, "
            f"which needs {_FEWEST} or more"
        )
    return {"neutral": plain, "with_code": plain | (conditions == CODE)}


def _open(pair: str, folder: Path, source: str, prompts: Sequence[Prompt]) -> Side:
    """Open what a pair's spillover left."""
    store = ActivationStore.open(folder / NEUTRAL_STORE)
    v = read_directions(folder)[INSECURE]
    if v.shape != (len(store.layers), store.d_model):
        raise UserError(
            f"{folder / DIRECTIONS}: '{INSECURE}' is {v.shape[0]} x {v.shape[1]}, the states are "
            f"{len(store.layers)} x {store.d_model}; run rule spillover again"
        )
    ids, digest = [prompt.id for prompt in prompts], store.manifest["sha256"]
    architecture = architecture_of(source)
    return Side(pair, architecture, lambda layer: store.read(layer, -1, ids), v, digest)


def architecture_of(source: str) -> str:
    """What models of one architecture share: zoo family, or `model_type` of the config.

    Returns:
        The source itself where a config cannot be read, so that it equals no other.
    """
    parsed = parse_source(source)
    match parsed:
        case ZooSource():
            return f"zoo {parsed.family}"
        case LocalSource():
            folder = parsed.folder
        case HubSource():
            folder = cached_snapshot(parsed.repo_id, parsed.revision)
    config = folder / "config.json" if folder is not None else None
    if config is None or not config.is_file():
        return source
    return str(json.loads(config.read_text(encoding="utf-8")).get("model_type", source))


def _all_maps(
    sides: Sequence[Side],
    prompts: Sequence[Prompt],
    members: Mapping[FitOn, Bool[np.ndarray, " prompt"]],
    settings: Misalignment,
    seed: int,
) -> _Found:
    """Every map, in the order donor, receiver, prompts, layer."""
    clusters = [prompt.cluster for prompt in prompts]
    found: _Found = {}
    for donor in sides:
        # Receivers' layers by the donor's layer at the same relative depth.
        meeting: dict[int, list[tuple[Side, int]]] = {}
        for side in (one for one in sides if one is not donor):
            for at in range(side.layers):
                layer = donor_layer(at, receiver=side.layers, donor=donor.layers)
                meeting.setdefault(layer, []).append((side, at))
        for fit_on, rows in members.items():
            # A donor's layer is decomposed once for all receivers that meet it.
            for layer, receivers in sorted(meeting.items()):
                fit = fit_source(donor, layer, fit_on, rows, clusters, settings, seed)
                for receiver, at in receivers:
                    found[donor.pair, receiver.pair, fit_on, at] = fit_map(fit, receiver, at)
    order = {side.pair: place for place, side in enumerate(sides)}
    places = {key: (order[key[0]], order[key[1]], FIT_ON.index(key[2]), key[3]) for key in found}
    return {key: found[key] for key in sorted(found, key=places.__getitem__)}


def _mapped(found: _Found) -> dict[str, np.ndarray]:
    """`<donor>--<receiver>.<fit_on>`: the mapped v of every layer."""
    joint: dict[str, list[np.ndarray]] = {}
    for (donor, receiver, fit_on, _), one in found.items():
        joint.setdefault(mapped_name(donor, receiver, fit_on), []).append(one.mapped)
    return {name: np.stack(some).astype(np.float32) for name, some in joint.items()}


def _say(found: _Found) -> None:
    """One line an ordered pair: its final map."""
    last: dict[tuple[str, str, FitOn], dict[str, object]] = {}
    for (donor, receiver, fit_on, _), one in found.items():
        last[donor, receiver, fit_on] = one.row
    for (donor, receiver, fit_on), row in last.items():
        names = ("r2", "r2_shuffled_high", "cosine", "cosine_null_high")
        numbers = ", ".join(f"{name} {row[name]:.3f}" for name in names)
        print(f"ridge_maps {donor}--{receiver} {fit_on}: {numbers}")
