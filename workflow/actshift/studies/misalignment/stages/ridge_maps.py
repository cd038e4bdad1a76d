"""Ridge maps between the untuned models of all pairs: stores in, maps and mapped vectors out.

No model is loaded: everything comes from the stores and directions that rule spillover left.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from safetensors.numpy import load_file, save_file

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
from actshift.studies.misalignment.maps import (
    FIT_ON,
    FitOn,
    LayerMap,
    MapSettings,
    Side,
    donor_layer,
    fit_map,
    fit_source,
)
from actshift.studies.misalignment.stages.ridge_map_files import (
    MAPPED,
    TABLE,
    Given,
    folder_of,
    mapped_name,
    write_pair,
)
from actshift.studies.misalignment.study import COLUMNS, Misalignment
from actshift.vocab import CODE, NEUTRAL

#: What rule spillover leaves of the untuned model and of the directions.
NEUTRAL_STORE, DIRECTIONS = f"states/{UNTUNED}.neutral", "directions.safetensors"
#: Too few clusters for folds inside folds.
_FEWEST = 3
_Found = dict[tuple[str, str, FitOn, int], LayerMap]


@dataclass(frozen=True, eq=False)
class Opened:
    """A pair that takes part.

    Attributes:
        side: Its states and direction.
        store: Where the states come from.
    """

    side: Side
    store: ActivationStore


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
    chosen = MapSettings(settings.map_folds, settings.shuffled_maps, settings.final_draws, seed)
    members = _members(prompts, chosen, neutral)
    present = {name: folder for name, folder in pairs.items() if has_numbers(folder)}
    missing = [name for name in pairs if name not in present]
    opened = {
        name: _open(name, folder, families[name], prompts) for name, folder in present.items()
    }
    found = _all_maps([one.side for one in opened.values()], prompts, members, chosen)
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        rows = [one.row for one in found.values()]
        write_table(pd.DataFrame(rows, columns=list(COLUMNS["ridge_maps"])), partial / TABLE)
        save_file(_mapped(found), partial / MAPPED)
        given = Given(content_hash(prompts), chosen, {n: _facts(o) for n, o in opened.items()})
        for names in _ordered(list(opened)):
            own = {key[2:]: one for key, one in found.items() if key[:2] == names}
            write_pair(folder_of(partial, *names), names, own, given)
        write_manifest(
            partial, kind="ridge maps", facts={"pairs": list(opened), "missing": missing}
        )
    for name in missing:
        print(f"ridge_maps: {name} is left out: {why_without(pairs[name])}")
    _say(found)


def _members(
    prompts: Sequence[Prompt], settings: MapSettings, where: Path
) -> dict[FitOn, Bool[np.ndarray, " prompt"]]:
    """Which prompts each map is fitted on.

    Raises:
        UserError: Too few clusters or folds.
    """
    conditions = np.array([prompt.condition for prompt in prompts])
    plain = conditions == NEUTRAL
    clusters = len({prompt.cluster for prompt in prompts if prompt.condition == NEUTRAL})
    if clusters < _FEWEST:
        raise UserError(
            f"{where}: {clusters} clusters of condition '{NEUTRAL}'; maps need {_FEWEST} or more"
        )
    if settings.folds < _FEWEST:
        raise UserError(
            f"misalignment.map_folds: {settings.folds}; a penalty is chosen inside each fold, "
            f"which needs {_FEWEST} or more"
        )
    return {"neutral": plain, "with_code": plain | (conditions == CODE)}


def _open(pair: str, folder: Path, source: str, prompts: Sequence[Prompt]) -> Opened:
    """Open what a pair's spillover left.

    Raises:
        UserError: A file is missing, or directions and states do not fit.
    """
    store = ActivationStore.open(folder / NEUTRAL_STORE)
    v = read_directions(folder)[INSECURE]
    if v.shape != (len(store.layers), store.d_model):
        raise UserError(
            f"{folder / DIRECTIONS}: '{INSECURE}' is {v.shape[0]} x {v.shape[1]}, the states are "
            f"{len(store.layers)} x {store.d_model}; run rule spillover again"
        )
    ids = [prompt.id for prompt in prompts]
    side = Side(pair, architecture_of(source), lambda layer: store.read(layer, -1, ids), v)
    return Opened(side, store)


def read_directions(folder: Path) -> dict[str, Float[np.ndarray, "layer d_model"]]:
    """The directions that rule spillover left, by adapter.

    Raises:
        UserError: The file or the insecure adapter's direction is missing.
    """
    path = folder / DIRECTIONS
    if not path.is_file():
        raise UserError(f"{path}: missing; run rule spillover again")
    found = load_file(path)
    if INSECURE not in found:
        raise UserError(f"{path}: has no direction '{INSECURE}'; run rule spillover again")
    return found


def architecture_of(source: str) -> str:
    """What models of one architecture share: zoo family, or `model_type` of the config.

    Args:
        source: As the configuration spells it.

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


def _ordered(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(donor, receiver) for donor in names for receiver in names if donor != receiver]


def _all_maps(
    sides: Sequence[Side],
    prompts: Sequence[Prompt],
    members: Mapping[FitOn, Bool[np.ndarray, " prompt"]],
    settings: MapSettings,
) -> _Found:
    """Every map, in the order donor, receiver, prompts, layer."""
    clusters = [prompt.cluster for prompt in prompts]
    found: _Found = {}
    for donor in sides:
        others = [side for side in sides if side is not donor]
        for fit_on, rows in members.items():
            # A donor's layer is decomposed once for all receivers that meet it.
            for layer in range(donor.layers if others else 0):
                meets = list(_meeting(donor, layer, others))
                if not meets:
                    continue
                fit = fit_source(donor, layer, fit_on, rows, clusters, settings)
                for receiver, at in meets:
                    key = (donor.pair, receiver.pair, fit_on, at)
                    found[key] = fit_map(fit, receiver, at, settings)
    order = {side.pair: place for place, side in enumerate(sides)}
    return dict(
        sorted(
            found.items(),
            key=lambda one: (
                order[one[0][0]],
                order[one[0][1]],
                FIT_ON.index(one[0][2]),
                one[0][3],
            ),
        )
    )


def _meeting(donor: Side, layer: int, others: Sequence[Side]) -> Iterator[tuple[Side, int]]:
    """Receivers' layers at the relative depth of a donor's layer."""
    for side in others:
        for at in range(side.layers):
            if donor_layer(at, receiver=side.layers, donor=donor.layers) == layer:
                yield side, at


def _mapped(found: _Found) -> dict[str, np.ndarray]:
    """`<donor>--<receiver>.<fit_on>`: the mapped v of every layer."""
    joint: dict[str, list[np.ndarray]] = {}
    for (donor, receiver, fit_on, _), one in found.items():
        joint.setdefault(mapped_name(donor, receiver, fit_on), []).append(one.mapped)
    return {name: np.stack(some).astype(np.float32) for name, some in joint.items()}


def _facts(one: Opened) -> dict[str, object]:
    return {
        "architecture": one.side.architecture,
        "layers": one.side.layers,
        "states": one.store.manifest["sha256"],
    }


def _say(found: _Found) -> None:
    """One line an ordered pair: its final map."""
    last: dict[tuple[str, str, FitOn], dict[str, object]] = {}
    for (donor, receiver, fit_on, _), one in found.items():
        last[donor, receiver, fit_on] = one.row
    for (donor, receiver, fit_on), row in last.items():
        told = ", ".join(
            f"{name} {row[name]:.3f}"
            for name in ("r2", "r2_shuffled_high", "cosine", "cosine_null_high")
        )
        print(f"ridge_maps {donor}--{receiver} {fit_on}: {told}")
