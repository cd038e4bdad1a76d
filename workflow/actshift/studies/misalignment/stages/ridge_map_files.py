"""Files of the folder `ridge_maps`: maps as factors, mapped vectors, vectors of their nulls.

maps.csv                                a row a map
mapped.safetensors                      `<donor>--<receiver>.<fit_on>`: mapped v_insecure by layer
<donor>--<receiver>/map.safetensors     `<fit_on>.<layer>.{left,right,mean_donor,mean_receiver}`
<donor>--<receiver>/vectors.safetensors what the final layer of the receiver is also steered with
<donor>--<receiver>/manifest.json       penalties, ranks, errors of the factors, hashes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from safetensors.numpy import load_file, save_file

from actshift.errors import UserError
from actshift.io.manifest import check_manifest, read_manifest, write_manifest
from actshift.maths.ridge import ENERGY, PENALTIES
from actshift.studies.misalignment.maps import FIT_ON, FitOn, LayerMap, MapSettings, Nulls, Sent

TABLE, MAPPED = "maps.csv", "mapped.safetensors"
MAP, VECTORS = "map.safetensors", "vectors.safetensors"


@dataclass(frozen=True)
class Given:
    """What all maps share.

    Attributes:
        prompts: Hash of the prompt set.
        settings: Folds, draws, seed.
        sides: Facts of each pair.
    """

    prompts: str
    settings: MapSettings
    sides: Mapping[str, Mapping[str, object]]


def folder_of(maps: Path, donor: str, receiver: str) -> Path:
    """Folder of one ordered pair."""
    return maps / f"{donor}--{receiver}"


def mapped_name(donor: str, receiver: str, fit_on: FitOn) -> str:
    """Name of a mapped direction in `mapped.safetensors`."""
    return f"{donor}--{receiver}.{fit_on}"


def write_pair(
    folder: Path,
    names: tuple[str, str],
    own: Mapping[tuple[FitOn, int], LayerMap],
    given: Given,
) -> None:
    """Make the folder of an ordered pair.

    Args:
        folder: To be made.
        names: Donor and receiver.
        own: Its maps by prompts and layer.
        given: For the manifest.
    """
    folder.mkdir()
    arrays: dict[str, np.ndarray] = {}
    for (fit_on, layer), one in own.items():
        parts = (one.factors.left, one.factors.right, *one.means)
        for part, values in zip(_PARTS, parts, strict=True):
            arrays[f"{fit_on}.{layer}.{part}"] = np.ascontiguousarray(values, dtype=np.float32)
    save_file(arrays, folder / MAP)
    for one in own.values():
        if one.nulls is not None:
            save_file(_vectors(one.nulls), folder / VECTORS)
    donor, receiver = names
    facts = {
        "donor": {"pair": donor, **given.sides[donor]},
        "receiver": {"pair": receiver, **given.sides[receiver]},
        "prompts": given.prompts,
        "penalties": [float(one) for one in PENALTIES],
        "folds": given.settings.folds,
        "draws": given.settings.draws,
        "seed": given.settings.seed,
        "energy": ENERGY,
        "maps": {f"{fit_on}.{layer}": _facts(one) for (fit_on, layer), one in own.items()},
    }
    write_manifest(folder, kind="ridge map", facts=facts)


_PARTS = ("left", "right", "mean_donor", "mean_receiver")


def _facts(one: LayerMap) -> dict[str, object]:
    told = {"rank": one.factors.rank, "error": one.factors.error}
    return {"penalty": one.row["penalty"], **told}


def _vectors(nulls: Nulls) -> dict[str, np.ndarray]:
    return {
        "mapped_random": nulls.mapped_random.astype(np.float32),
        "shuffled_pairing": nulls.shuffled_pairing.astype(np.float32),
        "wrong_layer": nulls.wrong_layer.astype(np.float32),
        "wrong_layer.layers": nulls.layers.astype(np.int32),
        "unmapped": nulls.unmapped.astype(np.float32),
    }


def donors_of(maps: Path, receiver: str) -> list[Sent]:
    """Read what all donors send to a receiver, in the order of the run's pairs.

    Args:
        maps: Folder of rule ridge_maps.
        receiver: Name of the receiver's pair.

    Raises:
        UserError: The receiver took no part, or a folder is damaged.
    """
    pairs: list[str] = read_manifest(maps)["facts"]["pairs"]
    if receiver not in pairs:
        raise UserError(f"{maps}: has no maps of {receiver}; run rule ridge_maps again")
    mapped = load_file(maps / MAPPED)
    found = []
    for donor in (name for name in pairs if name != receiver):
        folder = folder_of(maps, donor, receiver)
        for line in check_manifest(folder, deep=True):
            raise UserError(f"{line}; run rule ridge_maps again")
        arrays: dict[str, np.ndarray] = load_file(folder / VECTORS)
        layers: Int[np.ndarray, " layer"] = arrays["wrong_layer.layers"]
        nulls = Nulls(
            mapped_random=arrays["mapped_random"],
            shuffled_pairing=arrays["shuffled_pairing"],
            wrong_layer=arrays["wrong_layer"],
            layers=layers,
            unmapped=arrays["unmapped"],
        )
        last: dict[FitOn, np.ndarray] = {
            name: mapped[mapped_name(donor, receiver, name)][-1] for name in FIT_ON
        }
        found.append(Sent(donor, last, nulls))
    return found
