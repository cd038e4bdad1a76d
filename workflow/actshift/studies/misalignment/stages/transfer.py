"""One pair's insecure adapter under the mapped directions of all other pairs.

The edit is that of the last prompt token at the last block alone: a lane is one matrix product,
and what follows a first token is generated once for all lanes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actshift.engine.context import JobContext
from actshift.engine.parts import write_part
from actshift.errors import UserError
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.io.atomic import publishing
from actshift.io.manifest import read_manifest, write_manifest
from actshift.models.adapters import merged_hash
from actshift.prompts.records import content_hash, read_prompts
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.maps import Sent
from actshift.studies.misalignment.stages.ridge_map_files import donors_of
from actshift.studies.misalignment.stages.ridge_maps import read_directions
from actshift.studies.misalignment.stages.steering_inputs import SteeredPair, SteeringInputs
from actshift.studies.misalignment.stages.transfer_run import LaneRun
from actshift.studies.misalignment.study import Misalignment
from actshift.studies.misalignment.transfer_lanes import (
    Receiver,
    draws_by_coeff,
    kl_targets,
    mapped_lanes,
    null_lanes,
    plain_lane,
    relative_lanes,
)


@dataclass(frozen=True)
class TransferInputs:
    """What one receiver is made of.

    Attributes:
        tuned: Its untuned chat model.
        adapters: Its adapters.
        spillover: Their directions and the guards of answers.
        maps: Maps of all pairs.
        questions: Prompt set of the conditions noncode and code.
    """

    tuned: Path
    adapters: Path
    spillover: Path
    maps: Path
    questions: Path

    @property
    def steering(self) -> SteeringInputs:
        """Those that steering within the model reads too."""
        return SteeringInputs(self.tuned, self.adapters, self.spillover, self.questions)


def transfer(
    inputs: TransferInputs, settings: Misalignment, context: JobContext, *, out: Path
) -> None:
    """Subtract what every donor sends from the receiver's insecure adapter.

    Args:
        inputs: The receiver.
        settings: Of the study.
        context: Of the job; all draws were made with the maps.
        out: Folder to make: lanes, outcomes, prompts and answers, `.parquet`.

    Raises:
        UserError: Files do not fit together.

    Source: arXiv 2606.20225 (mapped directions and their controls).
    """
    keep_freed_memory()
    directions = read_directions(inputs.spillover)[INSECURE]
    v = directions[-1].astype(np.float64)
    if not np.any(v):
        raise UserError(
            f"{inputs.spillover}: the direction of '{INSECURE}' is zero at the last layer: the "
            "adapter changes nothing there, so there is nothing to compare with"
        )
    donors = donors_of(inputs.maps, context.pair)
    lane_run = LaneRun(SteeredPair(inputs.steering, settings, context))
    receiver = Receiver(context.pair, v, len(directions) - 1, settings.coeffs)
    lane_run.ask([plain_lane(receiver)])
    for sent in donors:
        _one_donor(lane_run, receiver, sent, settings)
    tables = lane_run.tables()
    names = [sent.donor for sent in donors]
    facts = {
        **{"run": context.run, "pair": context.pair, "seed": context.seed, "code": context.code},
        **{"donors": names, **_facts(inputs)},
    }
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        for name, table in tables.items():
            write_part(table, partial / f"{name}.parquet")
        write_manifest(partial, kind="transfer", facts=facts)
    counts = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
    print(f"transfer {context.pair}: {counts}")


def _one_donor(lane_run: LaneRun, receiver: Receiver, sent: Sent, settings: Misalignment) -> None:
    """All lanes of one donor: what it sends, relatives, nulls at equal norm and at equal KL."""
    mapped = lane_run.ask(mapped_lanes(receiver, sent))
    chosen = lane_run.chosen_coeff(sent.donor)
    lane_run.ask(relative_lanes(receiver, sent))
    lane_run.ask(null_lanes(receiver, sent, draws_by_coeff(settings, chosen)))
    drawn = null_lanes(receiver, sent, dict.fromkeys(settings.coeffs, settings.kl_draws))
    lane_run.ask(lane_run.at_equal_kl(drawn, kl_targets(mapped, drawn)))


def _facts(inputs: TransferInputs) -> dict[str, str]:
    return {
        "model": merged_hash(inputs.tuned, inputs.adapters / INSECURE),
        "maps": read_manifest(inputs.maps)["sha256"],
        "questions": content_hash(read_prompts(inputs.questions)),
    }
