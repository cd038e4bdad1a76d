"""Running planned lanes: what every prompt gets in every lane, as parts that can be taken up again.

A part is a table of lane, prompt, KL and the answer's tokens. Edits of the first token are one part
a receiver: their answers are continued once for every distinct (prompt, first token).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from actshift.engine.first_token import Answers, FirstTokenEdits
from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked, InterveneSettings, plan_batches
from actshift.engine.parts import Part
from actshift.hooks.lanes.final_edit import FirstTokens, first_kl
from actshift.hooks.lanes.generation import Continuation, generate_lanes
from actshift.hooks.reading.first_tokens import first_logits
from actshift.models.load import LoadedModel
from actshift.studies.misalignment.material import AskedOf, Planned

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


@dataclass(frozen=True)
class Questions:
    """The questions of a pair.

    Attributes:
        asked: All of them, with their tokens.
        of: Places of those of a lane, by what lanes are asked.
        choosing: Places of the `select` questions that are not about code.
    """

    asked: Sequence[Asked]
    of: Mapping[AskedOf, list[int]]
    choosing: list[int]


@dataclass
class Receiver:
    """An adapter that is edited; it is loaded when a part needs it.

    Attributes:
        name: Kind of the adapter.
        load: Loads it.
        questions: What it is asked.
        max_new: Longest answer, tokens.
        token_budget: Most padded tokens a pass.
        untuned_first: First tokens of the untuned model on the questions at some places.
    """

    name: str
    load: Callable[[], LoadedModel]
    questions: Questions
    max_new: int
    token_budget: int
    untuned_first: Callable[[Sequence[int]], Int[np.ndarray, " prompt"]]

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model."""
        return self.load()

    @cached_property
    def edits(self) -> FirstTokenEdits:
        """Its states at the last block, for edits of the first token."""
        return FirstTokenEdits(
            self.loaded,
            self.questions.asked,
            max_new=self.max_new,
            token_budget=self.token_budget,
        )

    def parts(self, planned: Sequence[Planned]) -> list[Part]:
        """Parts of some lanes; their rows name a lane by its place.

        Lanes that are `unmatched` are in none.
        """
        wanted = [place for place, one in enumerate(planned) if one.facts.status == "ok"]
        first = [place for place in wanted if _is_first(planned[place])]
        parts = []
        if first:
            weight = sum(len(self.questions.of[planned[place].asked]) for place in first)
            parts.append(Part(partial(self._first_rows, planned, first), weight))
        groups: dict[tuple[int, AskedOf], list[int]] = {}
        for place in wanted:
            one = planned[place]
            if not _is_first(one):
                groups.setdefault((one.facts.layer, one.asked), []).append(place)
        for (_, asked), lanes in groups.items():
            parts += self._generated(planned, lanes, self.questions.of[asked])
        return parts

    def final_kl(
        self, planned: Sequence[Planned], scale: Float[np.ndarray, " lane"]
    ) -> Float[np.ndarray, " lane"]:
        """Mean KL on the choosing questions of edits of the last block, each lane at a scale."""
        found = self.edits.first(_scaled(planned, scale), self.questions.choosing)
        return found.kl.mean(axis=1, dtype=np.float64)

    def layer_kl(
        self, planned: Sequence[Planned], scale: Float[np.ndarray, " lane"]
    ) -> Float[np.ndarray, " lane"]:
        """The same for edits of any block at every token, by reading the prompts."""
        places = np.array(self.questions.choosing)
        lanes = [one.at_scale(by).lane() for one, by in zip(planned, scale, strict=True)]
        ids = [self.questions.asked[place].ids for place in places]
        total = np.zeros(len(lanes))
        for found in first_logits(
            decoder_of(self.loaded), ids, lanes, token_budget=self.token_budget
        ):
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
            places = self.questions.of[asked]
            found = self._first_tokens(protocol, [planned[lane] for lane in members], places)
            lane_of.append(np.repeat(np.array(members, dtype=np.int32), len(places)))
            prompt_of.append(np.tile(np.array(places, dtype=np.int16), len(members)))
            token.append(found.tokens.ravel())
            kl.append(found.kl.ravel())
        prompts = np.concatenate(prompt_of)
        said = self.edits.continued(prompts, np.concatenate(token))
        answers = [one for _, one in said.answers]
        return _table(np.concatenate(lane_of), prompts, np.concatenate(kl), said.number, answers)

    def _first_tokens(
        self, protocol: str, members: Sequence[Planned], places: Sequence[int]
    ) -> FirstTokens:
        """First tokens of some questions under lanes of one protocol."""
        if protocol == "forced_token":
            tokens = np.tile(self.untuned_first(places), (len(members), 1)).astype(np.int32)
            # From a distribution to a single token there is no finite KL.
            return FirstTokens(tokens, np.full(tokens.shape, np.nan, dtype=np.float32))
        vectors = np.stack([one.subtracted for one in members])
        if protocol == "logit_bias":
            return self.edits.biased(self.edits.bias(vectors, self.questions.choosing), places)
        return self.edits.first(vectors, places)

    def _generated(
        self, planned: Sequence[Planned], lanes: Sequence[int], places: Sequence[int]
    ) -> list[Part]:
        settings = InterveneSettings(
            max_new=self.max_new,
            token_budget=self.token_budget,
            prompts_a_batch=_PROMPTS_A_BATCH,
        )
        lengths = [len(self.questions.asked[place].ids) for place in places]
        parts = []
        for batch in plan_batches(lengths, len(lanes), settings):
            chosen = [lanes[number] for number in batch.lanes]
            prompts = [places[number] for number in batch.prompts]
            make = partial(self._generated_rows, planned, chosen, prompts)
            parts.append(Part(make, len(chosen) * len(prompts)))
        return parts

    def _generated_rows(
        self, planned: Sequence[Planned], lanes: Sequence[int], places: Sequence[int]
    ) -> pa.Table:
        """Every prompt of a batch in every lane of it."""
        ids = [self.questions.asked[place].ids for place in places]
        edits = [planned[lane].lane() for lane in lanes]
        found = generate_lanes(decoder_of(self.loaded), ids, edits, max_new=self.max_new)
        kl = first_kl(self.edits.plain(places), found.first_logits)
        answers = [one for of_lane in found.answers for one in of_lane]
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


def read_rows(files: Sequence[Path], book: Answers, *, first: int) -> Rows:
    """Read parts and enter their answers into a book, in an order that the parts alone decide.

    Args:
        files: Of parts of one receiver.
        book: Gets every distinct answer.
        first: Number of the lane that the parts call 0.
    """
    return join_rows([_read_part(file, book, first) for file in files])


def join_rows(rows: Sequence[Rows]) -> Rows:
    """All rows, by lane, then prompt."""
    names = [one.name for one in fields(Rows)]
    whole = {name: np.concatenate([getattr(one, name) for one in rows]) for name in names}
    order = np.lexsort((whole["prompt"], whole["lane"]))
    return Rows(**{name: values[order] for name, values in whole.items()})


def _read_part(file: Path, book: Answers, first: int) -> Rows:
    table = pq.read_table(file, read_dictionary=[_SAID], page_checksum_verification=True)
    prompt = table["prompt"].to_numpy()
    said = table[_SAID].combine_chunks()
    texts = said.dictionary.to_pylist()
    keys = prompt.astype(np.int64) * len(texts) + said.indices.to_numpy()
    distinct, number = np.unique(keys, return_inverse=True)
    pairs = [divmod(int(key), len(texts)) for key in distinct]
    answers = [_enter(book, place, texts[text]) for place, text in pairs]
    return Rows(
        table["lane"].to_numpy() + np.int32(first),
        prompt,
        np.array(answers, dtype=np.int32)[number],
        table["kl_first"].to_numpy(),
    )


def _enter(book: Answers, prompt: int, said: bytes) -> int:
    ended, *tokens = np.frombuffer(said, dtype=np.int32).tolist()
    return book.add(prompt, tuple(tokens), bool(ended))


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


def _scaled(
    planned: Sequence[Planned], scale: Float[np.ndarray, " lane"]
) -> Float[np.ndarray, "lane d_model"]:
    return np.stack([one.at_scale(by).subtracted for one, by in zip(planned, scale, strict=True)])


def _is_first(planned: Planned) -> bool:
    return planned.facts.protocol in _FIRST_TOKEN
