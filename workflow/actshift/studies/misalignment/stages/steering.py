"""Steering within a model: one pair's adapters under every edit, a row a lane.

Lanes that nothing is chosen for come first; the coefficient of every protocol and layer, and the
scales of equal KL, are then chosen on `select` questions, and the remaining draws follow. Parts
are kept in a staging folder, so that a rerun after a kill goes on where it stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from actshift.engine.context import JobContext
from actshift.engine.parts import fill_parts, write_part
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.io.atomic import file_lock, publishing, remove
from actshift.studies.misalignment.choose import chosen_coeff, equal_kl
from actshift.studies.misalignment.kinds import INSECURE, Protocol
from actshift.studies.misalignment.lanes import (
    at_equal_kl,
    content_lanes,
    draws_at,
    final_draws,
    forced_lane,
    kl_draws,
    other_adapters,
    own_lanes,
    plain_lane,
    relatives,
)
from actshift.studies.misalignment.material import LaneFacts, Planned, middle_layers
from actshift.studies.misalignment.outcomes import question_row
from actshift.studies.misalignment.stages.steering_inputs import SteeredPair, SteeringInputs
from actshift.studies.misalignment.stages.steering_run import Receiver, Rows, join_rows, read_rows
from actshift.studies.misalignment.study import Misalignment

__all__ = ["SteeringInputs", "steering"]
#: Files of the stage's folder.
LANES, OUTCOMES = "lanes.parquet", "outcomes.parquet"
PROMPTS, ANSWERS = "prompts.parquet", "answers.parquet"
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("coeff", "scale", "cosine", "kl_select"), pa.float64()),
    **dict.fromkeys(("lane", "layer", "draw"), pa.int32()),
    "orthogonal": pa.bool_(),
}
_LANE = pa.schema(
    [
        (name, _TYPES.get(name, pa.string()))
        for name in ("lane", *(one.name for one in fields(LaneFacts)))
    ]
)
_OUTCOME = pa.schema(
    [
        *(("lane", pa.int32()), ("prompt", pa.int16())),
        *(("answer", pa.int32()), ("kl_first", pa.float32())),
    ]
)


def steering(
    inputs: SteeringInputs, settings: Misalignment, context: JobContext, *, out: Path
) -> None:
    """Run every lane on one pair's adapters and write the pair's folder.

    Args:
        inputs: The pair.
        settings: Of the study.
        context: Of the job; unfinished parts lie in its staging folder.
        out: Folder to make: lanes, outcomes, prompts, answers.

    Raises:
        UserError: An adapter or direction is missing or moves nothing.

    Source: arXiv 2606.20225 (the edit of the last token); all else is of this project.
    """
    keep_freed_memory()
    pair = SteeredPair(inputs, settings, context)
    parts = context.staging / pair.key
    with file_lock(parts.with_name(f"{parts.name[:16]}.lock")), publishing(out) as partial_out:
        work = _Work(pair, parts)
        for name in pair.steered:
            work.steer(name)
        partial_out.mkdir()
        work.write(partial_out)
    remove(parts)


@dataclass
class _Work:
    """The lanes and outcomes of a pair so far.

    Attributes:
        pair: The pair.
        parts: Folder of unfinished parts.
        lanes: Lanes by number.
        rows: Their outcomes, one entry a phase.
    """

    pair: SteeredPair
    parts: Path
    lanes: list[Planned] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)

    def steer(self, name: str) -> None:
        """Every lane of one adapter."""
        receiver = Receiver(
            name,
            partial(self.pair.load, name),
            self.pair.questions,
            max_new=self.pair.settings.max_new,
            token_budget=self.pair.settings.token_budget,
            untuned_first=self.pair.untuned_first,
        )
        final = self.pair.material.final
        lanes = [plain_lane(self.pair.material, name)]
        if name != INSECURE:
            lanes += content_lanes(self.pair.material, "last_token", name)
            lanes += content_lanes(self.pair.material, "all_tokens", name)
            self._run(receiver, "lanes", lanes)
            return
        for protocol in ("last_token", "logit_bias"):
            lanes += own_lanes(self.pair.material, protocol, final)
        lanes.append(forced_lane(self.pair.material))
        lanes += [*relatives(self.pair.material), *final_draws(self.pair.material)]
        for coeff in self.pair.settings.coeffs:
            lanes += self._equal_kl(receiver, "last_token", final, coeff)
        lanes += other_adapters(self.pair.material)
        for protocol, layer in self._generated():
            lanes += own_lanes(self.pair.material, protocol, layer)
        self._run(receiver, "lanes", lanes)
        more: list[Planned] = []
        for protocol, layer in self._generated():
            coeff = self._coeff(protocol, layer)
            draws = self.pair.settings.lane_draws
            more += draws_at(self.pair.material, protocol, layer, coeff, draws)
            more += self._equal_kl(receiver, protocol, layer, coeff)
        self._run(receiver, "draws", more)

    def write(self, out: Path) -> None:
        """Write the four tables."""
        rows = join_rows(self.rows)
        judged = self.pair.book.judged()
        kinds = {"answer": "int32", "prompt": "int16", "first_token": "int32"}
        tables = {
            LANES: pa.Table.from_pylist(list(self._lane_rows(rows)), schema=_LANE),
            OUTCOMES: pa.Table.from_pydict(
                {name: getattr(rows, name) for name in _OUTCOME.names}, schema=_OUTCOME
            ),
            PROMPTS: pa.Table.from_pylist([question_row(one.prompt) for one in self.pair.asked]),
            ANSWERS: pa.Table.from_pandas(judged.astype(kinds), preserve_index=False),
        }
        for file, table in tables.items():
            write_part(table.replace_schema_metadata(None), out / file)
        print(
            f"{self.pair.context.pair}: {len(self.lanes)} lanes, {len(rows.lane)} outcomes, "
            f"{len(judged)} distinct answers"
        )

    def _generated(self) -> list[tuple[Protocol, int]]:
        """Protocols that need the engine, and the layers they are run at."""
        middle: list[tuple[Protocol, int]] = [
            ("layer", layer) for layer in middle_layers(self.pair.material.depth)
        ]
        return [("all_tokens", self.pair.material.final), *middle]

    def _run(self, receiver: Receiver, phase: str, lanes: Sequence[Planned]) -> None:
        """Make the parts of some lanes, and take their rows over."""
        first = len(self.lanes)
        self.lanes += lanes
        files = fill_parts(
            receiver.parts(lanes),
            self.parts / f"{receiver.name}.{phase}",
            label=f"{self.pair.context.pair}.{receiver.name}, {phase}",
            unit="answer",
        )
        self.rows.append(read_rows(files, self.pair.book, first=first))

    def _equal_kl(
        self, receiver: Receiver, protocol: Protocol, layer: int, coeff: float
    ) -> list[Planned]:
        """Draws of every null at v's KL on `select` questions."""
        facts = {"protocol": protocol, "control": "direction", "layer": layer, "coeff": coeff}
        own = self.pair.material.planned(self.pair.material.v(layer), **facts)
        draws = kl_draws(self.pair.material, protocol)
        planned = draws_at(self.pair.material, protocol, layer, coeff, draws)
        # At the last block the first token's logits are all that an edit of every token changes.
        measure = receiver.layer_kl if protocol == "layer" else receiver.final_kl
        target = np.full(len(planned), measure([own], np.ones(1))[0])
        found = equal_kl(
            lambda places, scale: measure([planned[place] for place in places], scale),
            target,
            [self.pair.asked[place].prompt for place in self.pair.questions.choosing],
            max_scale=self.pair.settings.max_scale,
        )
        return at_equal_kl(planned, found.scale, found.kl, found.matched.tolist())

    def _coeff(self, protocol: Protocol, layer: int) -> float:
        """The coefficient of a protocol and layer, chosen on `select` questions."""
        own = {
            one.facts.coeff: self._repaired(lane)
            for lane, one in enumerate(self.lanes)
            if (one.facts.protocol, one.facts.layer) == (protocol, layer)
            and one.facts.control == "direction"
        }
        plain = next(i for i, one in enumerate(self.lanes) if one.facts.control == "plain")
        prompts = [self.pair.asked[place].prompt for place in self.pair.questions.choosing]
        return chosen_coeff(own, self._repaired(plain), prompts)

    def _repaired(self, lane: int) -> Bool[np.ndarray, " prompt"]:
        """Whether the answers of a lane to the choosing questions are repaired, in their order."""
        rows = self.rows[-1]
        mine = (rows.lane == lane) & np.isin(rows.prompt, self.pair.questions.choosing)
        return self.pair.book.judged()["repaired"].to_numpy(dtype=bool)[rows.answer[mine]]

    def _lane_rows(self, rows: Rows) -> Iterator[dict[str, Any]]:
        """Facts of every lane; KL on `select` questions where the lane was asked them."""
        chosen = np.isin(rows.prompt, self.pair.questions.choosing)
        total = np.bincount(rows.lane[chosen], rows.kl_first[chosen], minlength=len(self.lanes))
        for number, one in enumerate(self.lanes):
            facts = asdict(one.facts)
            if one.asked == "both":
                facts["kl_select"] = float(total[number]) / len(self.pair.questions.choosing)
            yield {"lane": number, **facts}
