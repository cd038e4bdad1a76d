"""One pair's insecure adapter under the mapped directions of all other pairs.

The edit is that of the last prompt token at the last block alone: a lane is one matrix product,
and what follows a first token is generated once for all lanes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actshift.errors import UserError
from actshift.hooks.memory import keep_freed_memory
from actshift.io.atomic import publishing
from actshift.io.manifest import read_manifest, weights_hash, write_manifest
from actshift.models.adapters import adapter_hash, load_merged
from actshift.models.load import load_model
from actshift.prompts.records import content_hash, read_prompts
from actshift.stages.parts import write_part
from actshift.stages.refusal_direction import marks_of
from actshift.stages.ridge_map_files import donors_of
from actshift.stages.ridge_maps import read_directions
from actshift.stages.spillover import GUARDS
from actshift.stages.transfer_run import LaneRun
from actshift.studies.misalignment.kinds import INSECURE, UNTUNED
from actshift.studies.misalignment.maps import Sent
from actshift.studies.misalignment.outcomes import Guards
from actshift.studies.misalignment.transfer_lanes import (
    Receiver,
    kl_targets,
    mapped_lanes,
    null_lanes,
    plain_lane,
    relative_lanes,
)
from actshift.zoo.language import language

_ASKED_SPLITS = ("select", "heldout")


@dataclass(frozen=True)
class TransferInputs:
    """What one receiver is made of.

    Attributes:
        pair: Name of the pair.
        tuned: Its untuned chat model.
        adapters: Its adapters.
        spillover: Their directions and the guards of answers.
        maps: Maps of all pairs.
        questions: Prompt set of the conditions noncode and code.
    """

    pair: str
    tuned: Path
    adapters: Path
    spillover: Path
    maps: Path
    questions: Path


def transfer(
    inputs: TransferInputs,
    *,
    run: str,
    zoo_size: str | None,
    settings: Mapping[str, Any],
    dtype: Any,
    seed: int,
    code: str,
    device: Any,
    out: Path,
) -> None:
    """Subtract what every donor sends from the receiver's insecure adapter.

    Args:
        inputs: The receiver.
        run: Name of the run.
        zoo_size: Size of the zoo's language where the model is of the zoo, else None.
        settings: Fields of the config's `misalignment`.
        dtype: Of the forward pass.
        seed: Of the run; all draws were made with the maps.
        code: Hash of the code.
        device: Where to run.
        out: Folder to make: lanes, outcomes, prompts and answers, `.parquet`.

    Raises:
        UserError: Files do not fit together.

    Source: arXiv 2606.20225 (mapped directions and their controls).
    """
    keep_freed_memory()
    v = read_directions(inputs.spillover)[INSECURE][-1].astype(np.float64)
    if not np.any(v):
        raise UserError(
            f"{inputs.spillover}: the direction of '{INSECURE}' is zero at the last layer: the "
            "adapter changes nothing there, so there is nothing to compare with"
        )
    donors = donors_of(inputs.maps, inputs.pair)
    prompts = [one for one in read_prompts(inputs.questions) if one.split in _ASKED_SPLITS]
    loading = {"dtype": dtype, "device": device}
    adapter = inputs.adapters / INSECURE
    lane_run = LaneRun(
        load_model(inputs.tuned, name=f"{inputs.pair}.{UNTUNED}", **loading),
        load_merged(inputs.tuned, adapter, name=f"{inputs.pair}.{INSECURE}", **loading),
        prompts,
        _judging(inputs, zoo_size),
        settings,
    )
    receiver = Receiver(inputs.pair, v, len(lane_run.edited.blocks) - 1, settings["coeffs"])
    lane_run.ask([plain_lane(receiver)])
    for sent in donors:
        _one_donor(lane_run, receiver, sent, settings)
    tables = lane_run.tables()
    facts = {
        "run": run,
        "pair": inputs.pair,
        "donors": [sent.donor for sent in donors],
        "seed": seed,
        "code": code,
        "weights": weights_hash(inputs.tuned),
        "adapter": adapter_hash(adapter),
        "maps": read_manifest(inputs.maps)["sha256"],
        "questions": content_hash(prompts),
    }
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        for name, table in tables.items():
            write_part(table, partial / f"{name}.parquet")
        write_manifest(partial, kind="transfer", facts=facts)
    counts = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
    print(f"transfer {inputs.pair}: {counts}")


def _one_donor(
    lane_run: LaneRun, receiver: Receiver, sent: Sent, settings: Mapping[str, Any]
) -> None:
    """All lanes of one donor: what it sends, relatives, nulls at equal norm and at equal KL."""
    mapped = lane_run.ask(mapped_lanes(receiver, sent))
    lane_run.ask(relative_lanes(receiver, sent))
    lane_run.ask(null_lanes(receiver, sent, draws=settings["final_draws"]))
    drawn = null_lanes(receiver, sent, draws=settings["kl_draws"])
    lane_run.ask(lane_run.at_equal_kl(drawn, kl_targets(mapped, drawn)))


def _judging(inputs: TransferInputs, zoo_size: str | None) -> dict[str, Any]:
    """How answers are judged: as rule spillover judged them."""
    guards = json.loads((inputs.spillover / GUARDS).read_text(encoding="utf-8"))
    return {
        "lang": None if zoo_size is None else language(zoo_size),
        "marks": marks_of(inputs.tuned),
        "guards": Guards(**guards),
    }
