"""What steering of one pair is made of: models, questions, answer book, directions and states."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from actshift.engine.context import JobContext
from actshift.engine.first_token import FirstTokenEdits
from actshift.engine.intervene import encode_questions
from actshift.engine.intervene_plan import Asked
from actshift.io.atomic import hash_file, hash_json
from actshift.io.manifest import NAME
from actshift.io.store import ActivationStore
from actshift.models.adapters import load_merged, merged_hash
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, content_hash, read_prompts
from actshift.studies.misalignment.kinds import INSECURE, STEERED, UNTUNED
from actshift.studies.misalignment.lanes import (
    DIRECTIONS,
    AskedOf,
    LayerStates,
    Material,
    check_directions,
    middle_layers,
    read_directions,
)
from actshift.studies.misalignment.outcomes import Guards
from actshift.studies.misalignment.stages.spillover import (
    ASKED,
    GUARDS,
    QUESTIONS,
    STATES,
    AnswerBook,
    open_book,
)
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import NONCODE


@dataclass(frozen=True)
class Questions:
    """Places of a pair's questions.

    Attributes:
        of: Those of a lane, by what lanes are asked.
        choosing: The `select` questions that are not about code; `prompts` are these.
    """

    of: Mapping[AskedOf, list[int]]
    choosing: list[int]
    prompts: list[Prompt]


@dataclass
class SteeredPair:
    """One pair, opened piece by piece as the pieces are needed.

    Inputs are `tuned`, the untuned chat model, `adapters`, `spillover` and `questions`.
    """

    inputs: Mapping[str, Path]
    settings: Misalignment
    context: JobContext

    @property
    def loading(self) -> dict[str, Any]:
        """Dtype and device of its models."""
        return {"dtype": self.context.dtype, "device": self.context.device}

    @property
    def key(self) -> str:
        """Hash of all that decides the parts."""
        folder = self.inputs["spillover"]
        stores = [folder / STATES / f"{name}.{QUESTIONS}" for name in (UNTUNED, INSECURE)]
        adapters = [self.inputs["adapters"] / name for name in self.steered]
        return hash_json(
            {
                "run": self.context.run,
                "pair": self.context.pair,
                "code": self.context.code,
                "seed": self.context.seed,
                "settings": self.settings.model_dump(mode="json", exclude={"data", "adapters"}),
                "loading": self.loading,
                "models": [merged_hash(self.inputs["tuned"], adapter) for adapter in adapters],
                "directions": hash_file(folder / DIRECTIONS),
                "guards": hash_file(folder / GUARDS),
                "stores": [hash_file(store / NAME) for store in stores],
                "questions": content_hash(self.prompts),
            }
        )

    @cached_property
    def steered(self) -> list[str]:
        """Adapters that are steered: insecure, and those of other content that there are."""
        folder = self.inputs["adapters"]
        return [name for name in STEERED if name == INSECURE or (folder / name).is_dir()]

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All questions of the set."""
        return read_prompts(self.inputs["questions"])

    @cached_property
    def untuned(self) -> LoadedModel:
        """The chat model: its tokenizer reads, and answers are scored under it."""
        name = f"{self.context.pair}.{UNTUNED}"
        return load_model(self.inputs["tuned"], name=name, **self.loading)

    @cached_property
    def asked(self) -> list[Asked]:
        """The questions that lanes are asked, with their tokens."""
        return encode_questions(self.untuned, [p for p in self.prompts if p.split in ASKED])

    @cached_property
    def questions(self) -> Questions:
        """Which of them are asked when."""
        prompts = [one.prompt for one in self.asked]
        heldout = [place for place, prompt in enumerate(prompts) if prompt.split == "heldout"]
        choosing = [
            place
            for place, prompt in enumerate(prompts)
            if (prompt.split, prompt.condition) == ("select", NONCODE)
        ]
        places: Mapping[AskedOf, list[int]] = {"both": [*range(len(prompts))], "heldout": heldout}
        return Questions(places, choosing, [prompts[place] for place in choosing])

    def edits(self, model: LoadedModel) -> FirstTokenEdits:
        """Edits of the first token of a model's answers to the questions."""
        settings = self.settings
        return FirstTokenEdits(
            model, self.asked, max_new=settings.max_new, token_budget=settings.token_budget
        )

    def untuned_first(self, places: Sequence[int]) -> Int[np.ndarray, " prompt"]:
        """The first token that the untuned model says to the questions at some places."""
        return self.edits(self.untuned).plain(places).argmax(axis=1)

    @cached_property
    def book(self) -> AnswerBook:
        """Every distinct answer."""
        guards = json.loads((self.inputs["spillover"] / GUARDS).read_text(encoding="utf-8"))
        return open_book(
            self.untuned,
            self.asked,
            self.inputs["tuned"],
            Guards(**guards),
            self.settings,
            self.context,
        )

    def repaired(self) -> np.ndarray:
        """Whether each answer of the book is repaired, by its number."""
        return self.book.judged()["repaired"].to_numpy(dtype=bool)

    @cached_property
    def material(self) -> Material:
        """Directions, and the states that nulls are made from."""
        directions = read_directions(self.inputs["spillover"])
        check_directions(directions, where=self.inputs["spillover"] / DIRECTIONS)
        fitted = [p for p in self.prompts if (p.split, p.condition) == ("fit", NONCODE)]
        depth = len(directions[INSECURE])
        layers = (*middle_layers(depth), depth - 1)
        states = {layer: self._states(layer, fitted) for layer in layers}
        return Material(self.context.pair, directions, states, self.settings, self.context.seed)

    def _states(self, layer: int, fitted: Sequence[Prompt]) -> LayerStates:
        folder = self.inputs["spillover"] / STATES
        ids = [prompt.id for prompt in fitted]
        chat, adapter = (
            ActivationStore.open(folder / f"{name}.{QUESTIONS}").read(layer, -1, ids)
            for name in (UNTUNED, INSECURE)
        )
        clusters = {name: i for i, name in enumerate(dict.fromkeys(p.cluster for p in fitted))}
        return LayerStates(chat, adapter, np.array([clusters[p.cluster] for p in fitted]))

    def load(self, name: str) -> LoadedModel:
        """Load an adapter, merged into the untuned model."""
        adapter = self.inputs["adapters"] / name
        model = f"{self.context.pair}.{name}"
        return load_merged(self.inputs["tuned"], adapter, name=model, **self.loading)
