"""Steering within a model: one pair's adapters under every edit, a row a lane.

Lanes that nothing is chosen for come first; the coefficient of every protocol and layer, and the
scales of equal KL, are then chosen on `select` questions, and the remaining draws follow.

A part is a table of lane, prompt, KL and the answer's tokens. Parts are kept in a staging folder,
so that a rerun after a kill goes on where it stopped. Edits of the first token are one part a
receiver: their answers are continued once for every distinct (prompt, first token).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from actshift.engine.context import JobContext
from actshift.engine.first_token import FirstTokenEdits
from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import InterveneSettings, plan_batches
from actshift.engine.parts import Part, fill_parts, write_part
from actshift.hooks.lanes.final_edit import FirstTokens, first_kl
from actshift.hooks.lanes.generation import Continuation, generate_lanes
from actshift.hooks.reading.first_tokens import first_logits
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.io.atomic import file_lock, publishing, remove
from actshift.models.load import LoadedModel
from actshift.studies.misalignment.choose import chosen_coeff
from actshift.studies.misalignment.kinds import INSECURE, Protocol
from actshift.studies.misalignment.lanes import (
    AskedOf,
    LaneFacts,
    Planned,
    at_equal_kl,
    content_lanes,
    draws_at,
    forced_lane,
    middle_layers,
    own_lanes,
    plain_lane,
    relatives,
)
from actshift.studies.misalignment.outcomes import question_row
from actshift.studies.misalignment.stages.spillover import AnswerBook
from actshift.studies.misalignment.stages.steering_inputs import SteeredPair
from actshift.studies.misalignment.study import Misalignment

#: Prompts that go through lanes together.
_PROMPTS_A_BATCH = 128
#: Protocols that are matrix products.
_FIRST_TOKEN = ("last_token", "logit_bias", "forced_token")
_SAID = "said"
_PART = pa.schema(
    [
        *(("lane", pa.int32()), ("prompt", pa.int16()), ("kl_first", pa.float32())),
        (_SAID, pa.dictionary(pa.int32(), pa.binary())),
    ]
)
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("coeff", "scale", "cosine", "kl_select"), pa.float64()),
    **dict.fromkeys(("lane", "layer", "draw"), pa.int32()),
    "orthogonal": pa.bool_(),
}
#: No vector of this stage went through a map.
_FACTS = [one.name for one in fields(LaneFacts) if one.name != "fit_on"]
_LANE = pa.schema([(name, _TYPES.get(name, pa.string())) for name in ("lane", *_FACTS)])
_OUTCOME = pa.schema(
    [
        *(("lane", pa.int32()), ("prompt", pa.int16())),
        *(("answer", pa.int32()), ("kl_first", pa.float32())),
    ]
)
_Lanes = Float[np.ndarray, " lane"]


def steering(
    inputs: Mapping[str, Path], *, settings: Misalignment, context: JobContext, out: Path
) -> None:
    """Run every lane on one pair's adapters; `out` gets lanes, outcomes, prompts and answers.

    Unfinished parts lie in the staging folder of the job. For `inputs` see `SteeredPair`.

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
    """The lanes of a pair so far, by number, and their outcomes, one entry a phase."""

    pair: SteeredPair
    parts: Path
    lanes: list[Planned] = field(default_factory=list)
    rows: list["Rows"] = field(default_factory=list)

    def steer(self, name: str) -> None:
        """Every lane of one adapter."""
        receiver, material = Receiver(self.pair, name), self.pair.material
        final, settings = material.final, self.pair.settings
        lanes = [plain_lane(material, name)]
        if name != INSECURE:
            lanes += content_lanes(material, "last_token", name)
            lanes += content_lanes(material, "all_tokens", name)
            self._run(receiver, "lanes", lanes)
            return
        lanes += own_lanes(material, "last_token", final)
        lanes += own_lanes(material, "logit_bias", final)
        lanes += [forced_lane(material), *relatives(material, "last_token")]
        # Mapped directions of other models are held against these, each at its own coefficient.
        for coeff in settings.coeffs:
            lanes += draws_at(material, "last_token", final, coeff, settings.final_draws)
        for coeff in settings.coeffs:
            lanes += self._equal_kl(receiver, "last_token", final, coeff)
        lanes += relatives(material, "all_tokens")
        # Protocols that need the engine, and the layers they are run at.
        layers: list[tuple[Protocol, int]] = [
            ("layer", layer) for layer in middle_layers(material.depth)
        ]
        generated: list[tuple[Protocol, int]] = [("all_tokens", final), *layers]
        for protocol, layer in generated:
            lanes += own_lanes(material, protocol, layer)
        self._run(receiver, "lanes", lanes)
        more: list[Planned] = []
        for protocol, layer in generated:
            coeff = self._coeff(protocol, layer)
            more += draws_at(material, protocol, layer, coeff, settings.lane_draws)
            more += self._equal_kl(receiver, protocol, layer, coeff)
        self._run(receiver, "draws", more)

    def write(self, out: Path) -> None:
        """Write the four tables."""
        rows = join_rows(self.rows)
        judged = self.pair.book.judged()
        kinds = {"answer": "int32", "prompt": "int16", "first_token": "int32"}
        outcomes = {name: getattr(rows, name) for name in _OUTCOME.names}
        tables = {
            "lanes": pa.Table.from_pylist(list(self._lane_rows(rows)), schema=_LANE),
            "outcomes": pa.Table.from_pydict(outcomes, schema=_OUTCOME),
            "prompts": pa.Table.from_pylist([question_row(one.prompt) for one in self.pair.asked]),
            "answers": pa.Table.from_pandas(judged.astype(kinds), preserve_index=False),
        }
        for name, table in tables.items():
            write_part(table.replace_schema_metadata(None), out / f"{name}.parquet")
        print(
            f"{self.pair.context.pair}: {len(self.lanes)} lanes, {len(rows.lane)} outcomes, "
            f"{len(judged)} distinct answers"
        )

    def _run(self, receiver: "Receiver", phase: str, lanes: Sequence[Planned]) -> None:
        """Make the parts of some lanes, and take their rows over."""
        first = len(self.lanes)
        self.lanes += lanes
        files = fill_parts(
            receiver.parts(lanes),
            self.parts / f"{receiver.name}.{phase}",
            label=f"{self.pair.context.pair}.{receiver.name}, {phase}",
            unit="answer",
        )
        # Answers are entered in an order that the parts alone decide.
        self.rows.append(join_rows([_read_part(file, self.pair.book, first) for file in files]))

    def _equal_kl(
        self, receiver: "Receiver", protocol: Protocol, layer: int, coeff: float
    ) -> list[Planned]:
        """Draws of every null at v's KL on `select` questions."""
        material, settings = self.pair.material, self.pair.settings
        facts = {"protocol": protocol, "control": "direction", "layer": layer, "coeff": coeff}
        own = material.planned(material.v(layer), **facts)
        draws = settings.kl_draws if protocol == "last_token" else settings.lane_kl_draws
        planned = draws_at(material, protocol, layer, coeff, draws)
        # At the last block the first token's logits are all that an edit of every token changes.
        measure = receiver.layer_kl if protocol == "layer" else receiver.final_kl
        return at_equal_kl(
            planned,
            lambda places, scale: measure([planned[place] for place in places], scale),
            np.full(len(planned), measure([own], np.ones(1))[0]),
            self.pair.questions.prompts,
            max_scale=settings.max_scale,
        )

    def _coeff(self, protocol: Protocol, layer: int) -> float:
        """The coefficient of a protocol and layer, chosen on `select` questions."""
        own = {
            one.facts.coeff: self._repaired(lane)
            for lane, one in enumerate(self.lanes)
            if (one.facts.protocol, one.facts.layer) == (protocol, layer)
            and one.facts.control == "direction"
        }
        plain = next(i for i, one in enumerate(self.lanes) if one.facts.control == "plain")
        return chosen_coeff(own, self._repaired(plain), self.pair.questions.prompts)

    def _repaired(self, lane: int) -> Bool[np.ndarray, " prompt"]:
        """Whether the answers of a lane to the choosing questions are repaired, in their order."""
        rows = self.rows[-1]
        chosen = (rows.lane == lane) & np.isin(rows.prompt, self.pair.questions.choosing)
        return self.pair.repaired()[rows.answer[chosen]]

    def _lane_rows(self, rows: "Rows") -> Iterator[dict[str, Any]]:
        """Facts of every lane; KL on `select` questions where the lane was asked them."""
        chosen = np.isin(rows.prompt, self.pair.questions.choosing)
        total = np.bincount(rows.lane[chosen], rows.kl_first[chosen], minlength=len(self.lanes))
        for number, one in enumerate(self.lanes):
            facts = asdict(one.facts)
            if one.asked == "both":
                facts["kl_select"] = float(total[number]) / len(self.pair.questions.choosing)
            yield {"lane": number, **facts}


@dataclass
class Receiver:
    """An adapter of a pair that is edited; it is loaded when a part needs it."""

    pair: SteeredPair
    name: str

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model."""
        return self.pair.load(self.name)

    @cached_property
    def edits(self) -> FirstTokenEdits:
        """Its states at the last block, for edits of the first token."""
        return self.pair.edits(self.loaded)

    def parts(self, planned: Sequence[Planned]) -> list[Part]:
        """Parts of some lanes; their rows name a lane by its place.

        Lanes that are `unmatched` are in none.
        """
        places_of = self.pair.questions.of
        first: list[int] = []
        groups: dict[tuple[int, AskedOf], list[int]] = {}
        for place, lane in enumerate(planned):
            if lane.facts.status == "ok" and lane.facts.protocol in _FIRST_TOKEN:
                first.append(place)
            elif lane.facts.status == "ok":
                groups.setdefault((lane.facts.layer, lane.asked), []).append(place)
        parts = []
        if first:
            weight = sum(len(places_of[planned[place].asked]) for place in first)
            parts.append(Part(partial(self._first_rows, planned, first), weight))
        for (_, asked), lanes in groups.items():
            parts += self._generated(planned, lanes, places_of[asked])
        return parts

    def final_kl(self, planned: Sequence[Planned], scale: _Lanes) -> _Lanes:
        """Mean KL on the choosing questions of edits of the last block, each lane at a scale."""
        vectors = [one.at_scale(by).subtracted for one, by in zip(planned, scale, strict=True)]
        found = self.edits.first(np.stack(vectors), self.pair.questions.choosing)
        return found.kl.mean(axis=1, dtype=np.float64)

    def layer_kl(self, planned: Sequence[Planned], scale: _Lanes) -> _Lanes:
        """The same for edits of any block at every token, by reading the prompts."""
        places = np.array(self.pair.questions.choosing)
        lanes = [one.at_scale(by).lane() for one, by in zip(planned, scale, strict=True)]
        ids = [self.pair.asked[place].ids for place in places]
        budget, total = self.pair.settings.token_budget, np.zeros(len(lanes))
        for found in first_logits(decoder_of(self.loaded), ids, lanes, token_budget=budget):
            plain = self.edits.plain(places[found.prompts].tolist())
            total[found.lanes] += first_kl(plain, found.logits).sum(axis=1, dtype=np.float64)
        return total / len(places)

    def _first_rows(self, planned: Sequence[Planned], lanes: Sequence[int]) -> pa.Table:
        """Every lane of the first token, group by group, and their answers together."""
        groups: dict[tuple[str, AskedOf], list[int]] = {}
        for lane in lanes:
            groups.setdefault((planned[lane].facts.protocol, planned[lane].asked), []).append(lane)
        lane_of, prompt_of, token, kl = [], [], [], []
        for (protocol, asked), members in groups.items():
            places = self.pair.questions.of[asked]
            found = self._first_tokens(protocol, [planned[lane] for lane in members], places)
            lane_of.append(np.repeat(np.array(members, dtype=np.int32), len(places)))
            prompt_of.append(np.tile(np.array(places, dtype=np.int16), len(members)))
            token.append(found.tokens.ravel())
            kl.append(found.kl.ravel())
        prompts = np.concatenate(prompt_of)
        said = self.edits.continued(prompts, np.concatenate(token))
        answers = [answer for _, answer in said.answers]
        return _table(np.concatenate(lane_of), prompts, np.concatenate(kl), said.number, answers)

    def _first_tokens(
        self, protocol: str, members: Sequence[Planned], places: Sequence[int]
    ) -> FirstTokens:
        """First tokens of some questions under lanes of one protocol."""
        if protocol == "forced_token":
            tokens = np.tile(self.pair.untuned_first(places), (len(members), 1)).astype(np.int32)
            # From a distribution to a single token there is no finite KL.
            return FirstTokens(tokens, np.full(tokens.shape, np.nan, dtype=np.float32))
        vectors = np.stack([one.subtracted for one in members])
        if protocol == "logit_bias":
            biases = self.edits.bias(vectors, self.pair.questions.choosing)
            return self.edits.biased(biases, places)
        return self.edits.first(vectors, places)

    def _generated(
        self, planned: Sequence[Planned], lanes: Sequence[int], places: Sequence[int]
    ) -> Iterator[Part]:
        settings = InterveneSettings(
            max_new=self.pair.settings.max_new,
            token_budget=self.pair.settings.token_budget,
            prompts_a_batch=_PROMPTS_A_BATCH,
        )
        lengths = [len(self.pair.asked[place].ids) for place in places]
        for batch in plan_batches(lengths, len(lanes), settings):
            chosen = [lanes[number] for number in batch.lanes]
            prompts = [places[number] for number in batch.prompts]
            make = partial(self._generated_rows, planned, chosen, prompts)
            yield Part(make, len(chosen) * len(prompts))

    def _generated_rows(
        self, planned: Sequence[Planned], lanes: Sequence[int], places: Sequence[int]
    ) -> pa.Table:
        """Every prompt of a batch in every lane of it."""
        ids = [self.pair.asked[place].ids for place in places]
        edits, max_new = [planned[lane].lane() for lane in lanes], self.pair.settings.max_new
        found = generate_lanes(decoder_of(self.loaded), ids, edits, max_new=max_new)
        kl = first_kl(self.edits.plain(places), found.first_logits)
        answers = [answer for of_lane in found.answers for answer in of_lane]
        return _table(
            np.repeat(np.array(lanes, dtype=np.int32), len(places)),
            np.tile(np.array(places, dtype=np.int16), len(lanes)),
            kl.ravel(),
            np.arange(len(answers), dtype=np.int32),
            answers,
        )


@dataclass(frozen=True)
class Rows:
    """Outcomes of some lanes, a row a lane and prompt."""

    lane: Int[np.ndarray, " row"]
    prompt: Int[np.ndarray, " row"]
    answer: Int[np.ndarray, " row"]
    kl_first: Float[np.ndarray, " row"]


def join_rows(rows: Sequence[Rows]) -> Rows:
    """All rows, by lane, then prompt."""
    whole = {
        one.name: np.concatenate([getattr(part, one.name) for part in rows]) for one in fields(Rows)
    }
    order = np.lexsort((whole["prompt"], whole["lane"]))
    return Rows(**{name: values[order] for name, values in whole.items()})


def _read_part(file: Path, book: AnswerBook, first: int) -> Rows:
    """Read a part and enter its answers into a book; `first` is the lane that it calls 0."""
    table = pq.read_table(file, read_dictionary=[_SAID], page_checksum_verification=True)
    prompt = table["prompt"].to_numpy()
    said = table[_SAID].combine_chunks()
    texts = said.dictionary.to_pylist()
    keys = prompt.astype(np.int64) * len(texts) + said.indices.to_numpy()
    distinct, number = np.unique(keys, return_inverse=True)
    answers = []
    for place, text in (divmod(int(key), len(texts)) for key in distinct):
        ended, *tokens = np.frombuffer(texts[text], dtype=np.int32).tolist()
        answers.append(book.add(place, tuple(tokens), bool(ended)))
    return Rows(
        table["lane"].to_numpy() + np.int32(first),
        prompt,
        np.array(answers, dtype=np.int32)[number],
        table["kl_first"].to_numpy(),
    )


def _table(
    lane: Int[np.ndarray, " row"],
    prompt: Int[np.ndarray, " row"],
    kl: Float[np.ndarray, " row"],
    number: Int[np.ndarray, " row"],
    answers: Sequence[Continuation],
) -> pa.Table:
    """Rows whose answers are bytes: whether the end came, and the tokens, as int32."""
    coded = [np.array([one.ended, *one.tokens], dtype=np.int32).tobytes() for one in answers]
    distinct = {text: place for place, text in enumerate(dict.fromkeys(coded))}
    index = np.array([distinct[text] for text in coded], dtype=np.int32)[number]
    said = pa.DictionaryArray.from_arrays(pa.array(index), pa.array(list(distinct), pa.binary()))
    columns = [pa.array(lane), pa.array(prompt), pa.array(kl), said]
    return pa.Table.from_arrays(columns, schema=_PART)
