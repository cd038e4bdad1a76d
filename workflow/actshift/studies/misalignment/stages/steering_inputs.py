"""What steering of one pair is made of: models, questions, answer book, directions and states."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from safetensors.numpy import load_file

from actshift.engine.context import JobContext
from actshift.engine.first_token import FirstTokenEdits
from actshift.engine.intervene_plan import Asked
from actshift.engine.plain_answers import encode_questions
from actshift.engine.refusal_phrases import refusal_phrases_of
from actshift.io.hashing import hash_file, hash_json
from actshift.io.manifest import NAME
from actshift.io.store import ActivationStore
from actshift.models.adapters import load_merged, merged_hash
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, content_hash, read_prompts
from actshift.studies.misalignment.kinds import INSECURE, STEERED, UNTUNED
from actshift.studies.misalignment.material import Material, check_directions, middle_layers
from actshift.studies.misalignment.nulls import LayerStates
from actshift.studies.misalignment.outcomes import Guards
from actshift.studies.misalignment.stages.answer_book import AnswerBook
from actshift.studies.misalignment.stages.spillover import DIRECTIONS, GUARDS, QUESTIONS, STATES
from actshift.studies.misalignment.stages.steering_run import Questions
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import NONCODE
from actshift.zoo.language import Language, language

_ASKED = ("select", "heldout")


@dataclass(frozen=True)
class SteeringInputs:
    """What one pair's job reads.

    Attributes:
        tuned: Checkpoint folder of the untuned chat model.
        adapters: Folder of its adapters.
        spillover: Folder of their directions, states and guards.
        questions: Prompt set of the conditions `noncode` and `code`.
    """

    tuned: Path
    adapters: Path
    spillover: Path
    questions: Path


@dataclass
class SteeredPair:
    """One pair, opened piece by piece as the pieces are needed.

    Attributes:
        inputs: Its files.
        settings: Of the study.
        context: Of the job.
    """

    inputs: SteeringInputs
    settings: Misalignment
    context: JobContext

    @property
    def loading(self) -> dict[str, Any]:
        """Dtype and device of its models."""
        return {"dtype": self.context.dtype, "device": self.context.device}

    @property
    def key(self) -> str:
        """Hash of all that decides the parts."""
        folder = self.inputs.spillover
        stores = [folder / STATES / f"{name}.{QUESTIONS}" for name in (UNTUNED, INSECURE)]
        return hash_json(
            {
                "run": self.context.run,
                "pair": self.context.pair,
                "code": self.context.code,
                "seed": self.context.seed,
                "settings": self.settings.model_dump(mode="json", exclude={"data", "adapters"}),
                "loading": self.loading,
                "models": [merged_hash(self.inputs.tuned, self._adapter(n)) for n in self.steered],
                "directions": hash_file(folder / DIRECTIONS),
                "guards": hash_file(folder / GUARDS),
                "stores": [hash_file(store / NAME) for store in stores],
                "questions": content_hash(self.prompts),
            }
        )

    @cached_property
    def steered(self) -> list[str]:
        """Adapters that are steered: insecure, and those of other content that there are."""
        return [
            name for name in STEERED if name == INSECURE or (self.inputs.adapters / name).is_dir()
        ]

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All questions of the set."""
        return read_prompts(self.inputs.questions)

    @cached_property
    def untuned(self) -> LoadedModel:
        """The chat model: its tokenizer reads, and answers are scored under it."""
        return load_model(self.inputs.tuned, name=f"{self.context.pair}.{UNTUNED}", **self.loading)

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

    def untuned_first(self, places: Sequence[int]) -> Int[np.ndarray, " prompt"]:
        """The first token that the untuned model says to the questions at some places."""
        edits = FirstTokenEdits(
            self.untuned, self.asked, max_new=1, token_budget=self.settings.token_budget
        )
        return edits.plain(places).argmax(axis=1)

    @property
    def language(self) -> Language | None:
        """The zoo's language; None for a model that does not speak it."""
        size = self.context.zoo_size
        return None if size is None else language(size)

    @cached_property
    def book(self) -> AnswerBook:
        """Every distinct answer."""
        guards = json.loads((self.inputs.spillover / GUARDS).read_text(encoding="utf-8"))
        return AnswerBook(
            self.untuned,
            self.asked,
            lang=self.language,
            refusal_phrases=refusal_phrases_of(self.inputs.tuned),
            guards=Guards(**guards),
            token_budget=self.settings.token_budget,
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
        return Material(self.context.pair, directions, states, self.settings, self.context.seed)

    def _states(self, layer: int, fitted: Sequence[Prompt]) -> LayerStates:
        folder = self.inputs.spillover / STATES
        ids = [prompt.id for prompt in fitted]
        chat, adapter = (
            ActivationStore.open(folder / f"{name}.{QUESTIONS}").read(layer, -1, ids)
            for name in (UNTUNED, INSECURE)
        )
        clusters = {name: i for i, name in enumerate(dict.fromkeys(p.cluster for p in fitted))}
        return LayerStates(chat, adapter, np.array([clusters[p.cluster] for p in fitted]))

    def _adapter(self, name: str) -> Path:
        return self.inputs.adapters / name

    def load(self, name: str) -> LoadedModel:
        """Load an adapter, merged into the untuned model."""
        return load_merged(
            self.inputs.tuned,
            self._adapter(name),
            name=f"{self.context.pair}.{name}",
            **self.loading,
        )
