"""One pair's insecure adapter under the mapped directions of all other pairs.

The edit is that of the last prompt token at the last block alone: a lane is one matrix product,
and what follows a first token is generated once for all lanes. All vectors have the norm of the
receiver's own v at its last block. Random and orthogonal directions of that norm are the receiver's
own nulls (`steering`), not repeated here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from actshift.engine.context import JobContext
from actshift.engine.first_token import FirstTokenEdits
from actshift.engine.parts import write_part
from actshift.errors import UserError
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.io.atomic import publishing
from actshift.io.manifest import read_manifest, write_manifest
from actshift.models.adapters import merged_hash
from actshift.prompts.records import content_hash
from actshift.studies.misalignment.choose import chosen_coeff
from actshift.studies.misalignment.kinds import INSECURE, MAPPED_NULLS
from actshift.studies.misalignment.lanes import (
    Material,
    Planned,
    at_equal_kl,
    orthogonalised,
    plain_lane,
    read_directions,
    rescaled,
)
from actshift.studies.misalignment.maps import FIT_ON, FitOn, Sent, donors_of
from actshift.studies.misalignment.outcomes import question_row
from actshift.studies.misalignment.stages.steering_inputs import SteeredPair
from actshift.studies.misalignment.study import Misalignment

#: Prompts that the map of nulls and relatives is fitted on.
PRIMARY: FitOn = "neutral"
_Vector = Float[np.ndarray, " d_model"]


def transfer(
    inputs: Mapping[str, Path], *, settings: Misalignment, context: JobContext, out: Path
) -> None:
    """Subtract what every donor sends from the receiver's insecure adapter.

    `inputs` are those of `SteeredPair`, and `maps` of all pairs, with which all draws were made;
    `out` gets lanes, outcomes, prompts and answers.

    Raises:
        UserError: Files do not fit together.

    Source: arXiv 2606.20225 (mapped directions and their controls).
    """
    keep_freed_memory()
    directions = read_directions(inputs["spillover"])
    if not np.any(directions[INSECURE][-1]):
        raise UserError(
            f"{inputs['spillover']}: the direction of '{INSECURE}' is zero at the last layer: the "
            "adapter changes nothing there, so there is nothing to compare with"
        )
    donors = donors_of(inputs["maps"], context.pair)
    pair = SteeredPair(inputs, settings, context)
    lane_run = LaneRun(pair)
    receiver = Material(context.pair, directions, {}, settings, context.seed)
    lane_run.ask([plain_lane(receiver)])
    for sent in donors:
        _one_donor(lane_run, receiver, sent, settings)
    tables = lane_run.tables()
    facts = {
        **{"run": context.run, "pair": context.pair, "seed": context.seed, "code": context.code},
        "donors": [sent.donor for sent in donors],
        "model": merged_hash(inputs["tuned"], inputs["adapters"] / INSECURE),
        "maps": read_manifest(inputs["maps"])["sha256"],
        "questions": content_hash(pair.prompts),
    }
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        for name, table in tables.items():
            write_part(table, partial / f"{name}.parquet")
        write_manifest(partial, kind="transfer", facts=facts)
    counts = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
    print(f"transfer {context.pair}: {counts}")


def _one_donor(lane_run: "LaneRun", receiver: Material, sent: Sent, settings: Misalignment) -> None:
    """All lanes of one donor: what it sends, relatives, nulls at equal norm and at equal KL."""
    mapped = lane_run.ask(mapped_lanes(receiver, sent))
    chosen = lane_run.chosen_coeff(sent.donor)
    lane_run.ask(relative_lanes(receiver, sent))
    # Most draws at the chosen coefficient.
    other = min(settings.final_draws, settings.other_draws)
    draws = {c: settings.final_draws if c == chosen else other for c in settings.coeffs}
    lane_run.ask(null_lanes(receiver, sent, draws))
    drawn = null_lanes(receiver, sent, dict.fromkeys(settings.coeffs, settings.kl_draws))
    own = {lane.facts.coeff: lane.facts.kl_select for lane in mapped if _is_primary(lane)}
    targets = np.array([own[lane.facts.coeff] for lane in drawn], dtype=np.float64)
    lane_run.ask(lane_run.at_equal_kl(drawn, targets))


def _is_primary(lane: Planned) -> bool:
    return lane.facts.fit_on == PRIMARY


def mapped_lanes(receiver: Material, sent: Sent) -> list[Planned]:
    """The donor's v through the map, fitted on either set of prompts."""
    facts = {**_at(receiver), "donor": sent.donor, "control": "mapped"}
    return [
        lane
        for fit_on in FIT_ON
        for lane in receiver.at_all_coeffs(sent.mapped[fit_on], "both", fit_on=fit_on, **facts)
    ]


def relative_lanes(receiver: Material, sent: Sent) -> list[Planned]:
    """The donor's v of other layers, and its v without a map where the widths are equal.

    Each as it is and without its part along the mapped v.
    """
    mapped = sent.mapped[PRIMARY]
    lanes: list[Planned] = []
    for vector, relative in _relatives(receiver, sent):
        facts = {**_at(receiver), "donor": sent.donor, **relative}
        lanes += receiver.at_all_coeffs(vector, "both", orthogonal=False, **facts)
        apart = orthogonalised(vector, mapped)
        lanes += receiver.at_all_coeffs(apart, "both", orthogonal=True, **facts)
    return lanes


def _relatives(receiver: Material, sent: Sent) -> Iterator[tuple[_Vector, dict[str, str]]]:
    own, nulls, unmapped = receiver.v(receiver.final), sent.nulls, sent.nulls.unmapped
    for layer, vector in zip(nulls.layers, nulls.wrong_layer, strict=True):
        if np.any(vector):
            facts = {"control": "wrong_layer", "source": f"layer {layer}", "fit_on": PRIMARY}
            yield vector, facts
    if unmapped.shape == own.shape and np.any(unmapped):
        norm = float(np.linalg.norm(own))
        yield rescaled(unmapped[None], norm)[0], {"control": "wrong_source"}


def null_lanes(receiver: Material, sent: Sent, draws: Mapping[float, int]) -> list[Planned]:
    """Draws of both nulls of a mapped direction, coefficient by coefficient, held-out questions."""
    facts = {**_at(receiver), "donor": sent.donor, "fit_on": PRIMARY}
    return [
        receiver.planned(vector, coeff=coeff, control=name, draw=draw, **facts)
        for coeff, each in draws.items()
        for name in MAPPED_NULLS
        for draw, vector in enumerate(getattr(sent.nulls, name)[:each])
    ]


def _at(receiver: Material) -> dict[str, object]:
    return {"protocol": "last_token", "layer": receiver.final}


@dataclass(frozen=True, eq=False)
class _Part:
    """First tokens of lanes that were asked the same questions."""

    lane: Int[np.ndarray, " lane"]
    places: list[int]
    tokens: Int[np.ndarray, "lane prompt"]
    kl: Float[np.ndarray, "lane prompt"]


@dataclass(eq=False)
class LaneRun:
    """The insecure adapter of a pair, and what all lanes so far did to it."""

    pair: SteeredPair
    lanes: list[Planned] = field(default_factory=list)
    _parts: list[_Part] = field(default_factory=list)

    @cached_property
    def _edits(self) -> FirstTokenEdits:
        """The adapter with its states of all questions."""
        return self.pair.edits(self.pair.load(INSECURE))

    def ask(self, planned: Sequence[Planned]) -> list[Planned]:
        """Ask lanes their questions; unmatched ones are kept and asked nothing.

        Returns:
            The lanes, their mean KL on select questions filled in where those were asked.
        """
        numbers = len(self.lanes) + np.arange(len(planned), dtype=np.int32)
        ok = [lane.facts.status == "ok" for lane in planned]
        asked = list(planned)
        if any(ok):
            places = self.pair.questions.of[planned[0].asked]
            vectors = np.stack([lane.subtracted for lane in planned])[ok]
            first = self._edits.first(vectors, places)
            self._parts.append(_Part(numbers[ok], places, first.tokens, first.kl))
            if planned[0].asked == "both":
                chosen = np.isin(places, self.pair.questions.choosing)
                nats = first.kl[:, chosen].mean(axis=1, dtype=np.float64)
                asked = [
                    replace(lane, facts=replace(lane.facts, kl_select=float(kl)))
                    for lane, kl in zip(planned, nats, strict=True)
                ]
        self.lanes += asked
        return asked

    def chosen_coeff(self, donor: str) -> float:
        """The coefficient of a donor's mapped v, by the map of `PRIMARY`, chosen on select."""
        mapped = {
            lane.facts.coeff: number
            for number, lane in enumerate(self.lanes)
            if (lane.facts.donor, lane.facts.control) == (donor, "mapped") and _is_primary(lane)
        }
        # The plain lane is the first one.
        plain, *repaired = self._repaired([0, *mapped.values()])
        own = dict(zip(mapped, repaired, strict=True))
        return chosen_coeff(own, plain, self.pair.questions.prompts)

    def _repaired(self, lanes: Sequence[int]) -> Bool[np.ndarray, "lane prompt"]:
        """Whether the answers of lanes to the choosing questions are repaired."""
        places = self.pair.questions.choosing
        tokens = np.stack([self._first(lane, places) for lane in lanes])
        answers = self._entered(np.tile(np.array(places), len(lanes)), tokens.ravel())
        return self.pair.repaired()[answers].reshape(tokens.shape)

    def _first(self, lane: int, places: Sequence[int]) -> Int[np.ndarray, " prompt"]:
        """First tokens of a lane."""
        part = next(one for one in self._parts if lane in one.lane)
        row = int(np.flatnonzero(part.lane == lane)[0])
        return part.tokens[row, [part.places.index(place) for place in places]]

    def _entered(
        self, prompt: Int[np.ndarray, " row"], token: Int[np.ndarray, " row"]
    ) -> Int[np.ndarray, " row"]:
        """Continue every distinct (question, first token) once; numbers of the answers."""
        said = self._edits.continued(prompt, token)
        book = self.pair.book
        entered = [book.add(place, one.tokens, one.ended) for place, one in said.answers]
        return np.array(entered, dtype=np.int32)[said.number]

    def at_equal_kl(
        self, planned: Sequence[Planned], targets: Float[np.ndarray, " lane"]
    ) -> list[Planned]:
        """Lanes of equal norm at the scale where their KL on select questions is the target."""
        vectors, questions = np.stack([one.subtracted for one in planned]), self.pair.questions

        def divergence(
            places: Int[np.ndarray, " open"], scale: Float[np.ndarray, " open"]
        ) -> Float[np.ndarray, " open"]:
            scaled = (vectors[places] * scale[:, None]).astype(np.float32)
            kl = self._edits.first(scaled, questions.choosing).kl
            return kl.mean(axis=1, dtype=np.float64)

        most = self.pair.settings.max_scale
        return at_equal_kl(planned, divergence, targets, questions.prompts, max_scale=most)

    def tables(self) -> dict[str, pa.Table]:
        """The four files: lanes, outcomes, prompts and answers."""
        lanes = pd.DataFrame([vars(one.facts) for one in self.lanes])
        lanes.insert(0, "lane", np.arange(len(lanes), dtype=np.int32))
        prompts = pd.DataFrame([question_row(one.prompt) for one in self.pair.asked])
        outcomes = self._answered()
        answers = self.pair.book.judged().drop(columns="ended")
        frames = {
            "lanes": lanes.astype({"layer": np.int32, "draw": np.int32}),
            "prompts": prompts,
            "answers": answers,
        }
        tables = {n: pa.Table.from_pandas(f, preserve_index=False) for n, f in frames.items()}
        tables["outcomes"] = outcomes
        return {name: table.replace_schema_metadata(None) for name, table in tables.items()}

    def _answered(self) -> pa.Table:
        parts = self._parts
        prompt = [np.tile(np.array(part.places, np.int16), len(part.lane)) for part in parts]
        prompts = np.concatenate(prompt)
        tokens = np.concatenate([part.tokens.ravel() for part in parts])
        columns = {
            "lane": np.concatenate([np.repeat(part.lane, len(part.places)) for part in parts]),
            "prompt": prompts,
            "answer": self._entered(prompts, tokens),
            "kl_first": np.concatenate([part.kl.ravel() for part in parts]),
        }
        return pa.table(columns)
