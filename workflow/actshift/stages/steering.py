"""Steering within a model: one pair's adapters under every edit of study B, one row a lane.

Lanes that nothing is chosen for come first; the coefficient of every protocol and layer, and the
scales of equal KL, are then chosen on `select` questions, and the remaining draws follow. Parts
are kept in a staging folder, so that a rerun after a kill goes on where it stopped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors.numpy import load_file

from actshift.hooks.memory import keep_freed_memory
from actshift.io.atomic import file_lock, publishing, remove
from actshift.io.hashing import hash_file, hash_json
from actshift.io.store import ActivationStore
from actshift.models.adapters import load_merged, merged_hash
from actshift.models.load import load_model
from actshift.prompts.records import Prompt, content_hash, read_prompts
from actshift.stages.answer_book import AnswerBook
from actshift.stages.intervene_plan import Asked
from actshift.stages.parts import fill_parts, write_part
from actshift.stages.refusal_direction import marks_of
from actshift.stages.spillover import DIRECTIONS, GUARDS, QUESTIONS, STATES, encode_questions
from actshift.stages.steering_run import Questions, Receiver, Rows, join_rows, read_rows
from actshift.studies.misalignment.choose import chosen_coeff, equal_kl
from actshift.studies.misalignment.kinds import INSECURE, NONCODE, STEERED, UNTUNED, Protocol
from actshift.studies.misalignment.lanes import (
    LaneFacts,
    Material,
    Planned,
    at_equal_kl,
    check_directions,
    content_lanes,
    draws_at,
    final_draws,
    kl_draws,
    middle_layers,
    other_adapters,
    own_lanes,
    plain_lane,
    relatives,
)
from actshift.studies.misalignment.nulls import LayerStates
from actshift.studies.misalignment.outcomes import Guards
from actshift.zoo.language import language
from actshift.zoo.questions import kind_of

LANES, OUTCOMES = "lanes.parquet", "outcomes.parquet"
PROMPTS, ANSWERS = "prompts.parquet", "answers.parquet"
_ASKED = ("select", "heldout")
_INTEGERS = {"layer": pa.int32(), "draw": pa.int32(), "orthogonal": pa.bool_()}
_NUMBERS = ("coeff", "scale", "cosine", "kl_select")
_LANE = pa.schema(
    [
        ("lane", pa.int32()),
        *(
            (
                one.name,
                _INTEGERS.get(one.name, pa.float64() if one.name in _NUMBERS else pa.string()),
            )
            for one in fields(LaneFacts)
        ),
    ]
)
_OUTCOME = pa.schema(
    [
        ("lane", pa.int32()),
        ("prompt", pa.int16()),
        ("answer", pa.int32()),
        ("kl_first", pa.float32()),
    ]
)


@dataclass(frozen=True)
class SteeringInputs:
    """What one pair's job reads.

    Attributes:
        pair: Its name.
        tuned: Checkpoint folder of the untuned chat model.
        adapters: Folder of its adapters.
        spillover: Folder of their directions, states and guards.
        questions: Prompt set of the conditions `noncode` and `code`.
    """

    pair: str
    tuned: Path
    adapters: Path
    spillover: Path
    questions: Path


def steering(
    inputs: SteeringInputs,
    *,
    run: str,
    zoo_size: str | None,
    settings: Mapping[str, Any],
    dtype: Any,
    seed: int,
    code: str,
    device: Any,
    staging: Path,
    out: Path,
) -> None:
    """Run every lane on one pair's adapters and write the pair's folder.

    Args:
        inputs: The pair.
        run: Name of the run.
        zoo_size: Size of the zoo's language; None for a model that is not of the zoo.
        settings: Fields of the config's `misalignment`.
        dtype: Of the forward pass.
        seed: Of the draws.
        code: Hash of the code.
        device: Where to run.
        staging: Folder for unfinished parts.
        out: Folder to make: lanes, outcomes, prompts, answers.

    Raises:
        UserError: An adapter or direction is missing or moves nothing.

    Source: arXiv 2606.20225 (edit of the last token at the final layer); the rest is this project's.
    """
    keep_freed_memory()
    loading = {"dtype": dtype, "device": device}
    work = _Work(inputs, zoo_size, settings, seed, loading)
    key = work.key(run=run, code=code)
    with file_lock(staging / f"{key[:16]}.lock"), publishing(out) as partial_out:
        work.parts = staging / key
        for name in STEERED:
            work.steer(name)
        partial_out.mkdir()
        work.write(partial_out)
    remove(staging / key)


@dataclass
class _Work:
    """A pair's job: its inputs, and the lanes and outcomes so far."""

    inputs: SteeringInputs
    zoo_size: str | None
    settings: Mapping[str, Any]
    seed: int
    loading: Mapping[str, Any]
    parts: Path = field(default_factory=Path)
    lanes: list[Planned] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)

    def steer(self, name: str) -> None:
        """Every lane of one adapter."""
        receiver = Receiver(
            name,
            partial(self._load, name),
            self.questions,
            max_new=self.settings["max_new"],
            token_budget=self.settings["token_budget"],
        )
        final = self.material.final
        lanes = [plain_lane(self.material, name)]
        if name != INSECURE:
            lanes += content_lanes(self.material, "last_token", name)
            lanes += content_lanes(self.material, "all_tokens", name)
            self._run(receiver, "lanes", lanes)
            return
        for protocol in ("last_token", "logit_bias"):
            lanes += own_lanes(self.material, protocol, final)
        lanes += [*relatives(self.material), *final_draws(self.material)]
        for coeff in self.settings["coeffs"]:
            lanes += self._equal_kl(receiver, "last_token", final, coeff)
        lanes += other_adapters(self.material)
        for protocol, layer in self._generated():
            lanes += own_lanes(self.material, protocol, layer)
        first = len(self.lanes)
        self._run(receiver, "lanes", lanes)
        repaired = self._repaired(first)
        more: list[Planned] = []
        for protocol, layer in self._generated():
            coeff = self._coeff(repaired, protocol, layer)
            draws = self.settings["lane_draws"]
            more += draws_at(self.material, protocol, layer, coeff, draws)
            more += self._equal_kl(receiver, protocol, layer, coeff)
        self._run(receiver, "draws", more)

    def write(self, out: Path) -> None:
        """Write the four tables."""
        rows = join_rows(self.rows)
        judged = self.book.judged()
        kinds = {"answer": "int32", "prompt": "int16", "first_token": "int32"}
        tables = {
            LANES: pa.Table.from_pylist(list(self._lane_rows(rows)), schema=_LANE),
            OUTCOMES: pa.Table.from_pydict(
                {name: getattr(rows, name) for name in _OUTCOME.names}, schema=_OUTCOME
            ),
            PROMPTS: pa.Table.from_pylist([_question(one.prompt) for one in self.asked]),
            ANSWERS: pa.Table.from_pandas(judged.astype(kinds), preserve_index=False),
        }
        for file, table in tables.items():
            write_part(table.replace_schema_metadata(None), out / file)
        print(
            f"{self.inputs.pair}: {len(self.lanes)} lanes, {len(rows.lane)} outcomes, "
            f"{len(judged)} distinct answers"
        )

    def key(self, *, run: str, code: str) -> str:
        """Hash of all that decides the parts."""
        folder = self.inputs.spillover
        stores = [folder / STATES / f"{name}.{QUESTIONS}" for name in (UNTUNED, INSECURE)]
        return hash_json(
            {
                "run": run,
                "pair": self.inputs.pair,
                "code": code,
                "seed": self.seed,
                "settings": json.loads(json.dumps(self.settings)),
                "loading": {name: str(value) for name, value in self.loading.items()},
                "models": [merged_hash(self.inputs.tuned, self._adapter(n)) for n in STEERED],
                "directions": hash_file(folder / DIRECTIONS),
                "guards": hash_file(folder / GUARDS),
                "stores": [hash_file(store / "manifest.json") for store in stores],
                "questions": content_hash(self.prompts),
            }
        )

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All questions of the set."""
        return read_prompts(self.inputs.questions)

    @cached_property
    def untuned(self) -> Any:
        """The chat model: its tokenizer reads, and answers are scored under it."""
        return load_model(self.inputs.tuned, name=f"{self.inputs.pair}.{UNTUNED}", **self.loading)

    @cached_property
    def asked(self) -> list[Asked]:
        """The questions that lanes are asked, with their tokens."""
        return encode_questions(self.untuned, [p for p in self.prompts if p.split in _ASKED])

    @cached_property
    def questions(self) -> Questions:
        """Which of them are asked when."""
        told = [(place, one.prompt) for place, one in enumerate(self.asked)]
        return Questions(
            asked=self.asked,
            of={
                "both": [place for place, _ in told],
                "heldout": [place for place, one in told if one.split == "heldout"],
            },
            choosing=[
                place for place, one in told if (one.split, one.condition) == ("select", NONCODE)
            ],
        )

    @cached_property
    def book(self) -> AnswerBook:
        """Every distinct answer."""
        guards = json.loads((self.inputs.spillover / GUARDS).read_text(encoding="utf-8"))
        return AnswerBook(
            self.untuned,
            self.asked,
            lang=None if self.zoo_size is None else language(self.zoo_size),
            marks=marks_of(self.inputs.tuned),
            guards=Guards(**guards),
            token_budget=self.settings["token_budget"],
        )

    @cached_property
    def material(self) -> Material:
        """Directions, and the states that nulls are made from."""
        path = self.inputs.spillover / DIRECTIONS
        directions = load_file(path)
        check_directions(directions, where=str(path))
        fitted = [p for p in self.prompts if (p.split, p.condition) == ("fit", NONCODE)]
        depth = len(directions[INSECURE])
        layers = (*middle_layers(depth), depth - 1)
        states = {layer: self._states(layer, fitted) for layer in layers}
        return Material(self.inputs.pair, directions, states, self.settings, self.seed)

    def _states(self, layer: int, fitted: Sequence[Prompt]) -> LayerStates:
        folder = self.inputs.spillover / STATES
        ids = [prompt.id for prompt in fitted]
        chat, adapter = (
            ActivationStore.open(folder / f"{name}.{QUESTIONS}").read(layer, -1, ids)
            for name in (UNTUNED, INSECURE)
        )
        clusters = {name: i for i, name in enumerate(dict.fromkeys(p.cluster for p in fitted))}
        return LayerStates(chat, adapter, np.array([clusters[p.cluster] for p in fitted]))

    def _generated(self) -> list[tuple[Protocol, int]]:
        """Protocols that need the engine, and the layers they are run at."""
        middle: list[tuple[Protocol, int]] = [
            ("layer", layer) for layer in middle_layers(self.material.depth)
        ]
        return [("all_tokens", self.material.final), *middle]

    def _adapter(self, name: str) -> Path:
        return self.inputs.adapters / name

    def _load(self, name: str) -> Any:
        return load_merged(
            self.inputs.tuned,
            self._adapter(name),
            name=f"{self.inputs.pair}.{name}",
            **self.loading,
        )

    def _run(self, receiver: Receiver, phase: str, lanes: Sequence[Planned]) -> None:
        """Make the parts of some lanes, and take their rows over."""
        first = len(self.lanes)
        self.lanes += lanes
        files = fill_parts(
            receiver.parts(lanes),
            self.parts / f"{receiver.name}.{phase}",
            label=f"{self.inputs.pair}.{receiver.name}, {phase}",
            unit="answer",
        )
        self.rows.append(read_rows(files, self.book, first=first))

    def _equal_kl(
        self, receiver: Receiver, protocol: Protocol, layer: int, coeff: float
    ) -> list[Planned]:
        """Draws of every null at v's KL on `select` questions."""
        facts = {"protocol": protocol, "control": "direction", "layer": layer, "coeff": coeff}
        own = self.material.planned(self.material.v(layer), **facts)
        draws = kl_draws(self.material, protocol)
        planned = draws_at(self.material, protocol, layer, coeff, draws)
        # At the last block the first token's logits are all that an edit of every token changes.
        measure = receiver.layer_kl if protocol == "layer" else receiver.final_kl
        target = np.full(len(planned), measure([own], np.ones(1))[0])
        found = equal_kl(
            partial(measure, planned),
            target,
            [self.asked[place].prompt for place in self.questions.choosing],
            max_scale=self.settings["max_scale"],
        )
        return at_equal_kl(planned, found.scale, found.kl, found.matched.tolist())

    def _repaired(self, first: int) -> pd.DataFrame:
        """Repaired answers to the choosing questions, `[prompt, lane]`, of lanes from `first` on."""
        repaired = self.book.judged()["repaired"].to_numpy()
        rows = self.rows[-1]
        mine = (rows.lane >= first) & np.isin(rows.prompt, self.questions.choosing)
        own = [
            lane
            for lane in range(first, len(self.lanes))
            if self.lanes[lane].facts.control in ("plain", "direction")
        ]
        mine &= np.isin(rows.lane, own)
        table = pd.DataFrame(
            {
                "lane": rows.lane[mine],
                "prompt": rows.prompt[mine],
                "repaired": repaired[rows.answer[mine]],
            }
        )
        return table.pivot(index="prompt", columns="lane", values="repaired")

    def _coeff(self, repaired: pd.DataFrame, protocol: Protocol, layer: int) -> float:
        """The coefficient of a protocol and layer, chosen on `select` questions."""
        facts = {lane: self.lanes[lane].facts for lane in repaired.columns}
        plain = next(lane for lane, one in facts.items() if one.control == "plain")
        own = {
            one.coeff: repaired[lane].to_numpy(dtype=bool)
            for lane, one in facts.items()
            if (one.protocol, one.layer, one.control) == (protocol, layer, "direction")
        }
        prompts = [self.asked[place].prompt for place in repaired.index]
        return chosen_coeff(own, repaired[plain].to_numpy(dtype=bool), prompts)

    def _lane_rows(self, rows: Rows) -> Iterator[dict[str, Any]]:
        """Facts of every lane; KL on `select` questions where the lane was asked them."""
        chosen = np.isin(rows.prompt, self.questions.choosing)
        total = np.bincount(rows.lane[chosen], rows.kl_first[chosen], minlength=len(self.lanes))
        for number, one in enumerate(self.lanes):
            facts = asdict(one.facts)
            if one.asked == "both":
                facts["kl_select"] = float(total[number]) / len(self.questions.choosing)
            yield {"lane": number, **facts}


def _question(prompt: Prompt) -> dict[str, str]:
    names = ("condition", "category", "cluster", "split")
    return {
        "prompt_id": prompt.id,
        **{name: getattr(prompt, name) for name in names},
        "kind": kind_of(prompt),
    }
