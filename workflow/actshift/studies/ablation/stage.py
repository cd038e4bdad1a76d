"""The ablation of one pair: frames, lanes, and every answer they give.

Frames come from the pair's activation stores and need no model. The experiments then run one after
the other; each leaves its finished file in the staging folder, so that a rerun after a kill goes on
where it stopped, and the folder of the pair appears as a whole.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actshift.edits import Lane
from actshift.engine.context import JobContext
from actshift.engine.intervene import decoder_of, intervene
from actshift.engine.intervene_plan import Asked, InterveneSettings, Labels, job_key, refusal_tokens
from actshift.engine.parts import is_whole
from actshift.engine.refusal_phrases import refusal_phrases_for
from actshift.engine.stores import CONDITIONS, FolderStores
from actshift.errors import UserError
from actshift.io.atomic import publishing, remove
from actshift.io.manifest import weights_hash
from actshift.io.tables import write_table
from actshift.maths.scores import AUDIT_PHRASES
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import Prompt, read_prompts
from actshift.prompts.templates import encode
from actshift.studies.ablation.frames import Fitted, fit_pair
from actshift.studies.ablation.inputs import Activations, asked_prompts
from actshift.studies.ablation.lanes import (
    LANES,
    Planned,
    old_or_new,
    patches,
    published,
    single_directions,
    sweep,
    with_plain,
)
from actshift.studies.ablation.study import Ablation
from actshift.studies.ablation.texts import plain_texts, text_losses
from actshift.vocab import ROLES, Role, Split

LANES_FILE, DIRECTIONS_FILE, LOSSES_FILE = "lanes.csv", "directions.csv", "losses.parquet"
DIRECTIONS = ("frame", "layer", "direction", "singular_value", "share", "self_cosine")


@dataclass(frozen=True)
class PairInputs:
    """What one pair is made of.

    Attributes:
        checkpoints: Folder of each model.
        stores: Folders of the pair's activation stores.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
    """

    checkpoints: Mapping[Role, Path]
    stores: Sequence[Path]
    prompts: Mapping[str, Path]


@dataclass(frozen=True)
class Experiment:
    """One file of rows: who is edited, on which prompts, in which lanes."""

    file: str
    receiver: Role
    split: Split
    lanes: list[Lane]
    donor: Role | None = None


def ablation(
    inputs: PairInputs,
    *,
    settings: Ablation,
    openers: Sequence[str],
    context: JobContext,
    out: Path,
) -> None:
    """Fit the frames, run every lane, write the pair's folder.

    Args:
        inputs: The pair.
        settings: The study's section of the configuration.
        openers: How a refusal opens; their first tokens give the log-odds.
        context: The job; its seed is that of random frames, resamples and the zoo's plain texts.
        out: Folder to make (docs/studies/ablation.md names its files).

    Raises:
        UserError: Prompts, stores and models do not fit together.

    Source: arXiv 2605.24583, Test 2 and Propositions 1 and 2.
    """
    prompts = {name: read_prompts(path) for name, path in inputs.prompts.items()}
    sets = {name: path.stem for name, path in inputs.prompts.items()}
    acts = Activations(FolderStores(inputs.stores), sets)
    fitted = fit_pair(acts, prompts, settings, seed=context.seed)
    ablated = [*sweep(fitted, settings), *single_directions(fitted, settings), *old_or_new(fitted)]
    patched = {name: patches(fitted, settings, name) for name in ("substitution", "mode_toggle")}
    _say(context.pair, fitted, [*ablated, *patched["substitution"], *patched["mode_toggle"]])
    models: dict[Role, LoadedModel] = {
        role: load_model(
            inputs.checkpoints[role],
            name=f"{context.pair}.{role}",
            dtype=context.dtype,
            device=context.device,
        )
        for role in ROLES
    }
    job = _Job(inputs, models, prompts, settings, tuple(openers), context)
    experiments = _experiments(ablated, patched, published_too=settings.published_protocol)
    files = {experiment.file: job.rows(experiment) for experiment in experiments}
    files[LOSSES_FILE] = job.losses(with_plain(ablated))
    with publishing(out) as partial:
        partial.mkdir()
        facts = [one.facts for one in (*ablated, *patched["substitution"], *patched["mode_toggle"])]
        table = pd.DataFrame(facts, columns=list(LANES)).astype({"draw": "Int64"})
        write_table(table, partial / LANES_FILE)
        directions = pd.DataFrame(fitted.directions, columns=list(DIRECTIONS))
        write_table(directions, partial / DIRECTIONS_FILE)
        for name, finished in files.items():
            shutil.copyfile(finished, partial / name)
    for finished in files.values():
        remove(finished)


def _experiments(
    ablated: Sequence[Planned], patched: Mapping[str, list[Planned]], *, published_too: bool
) -> list[Experiment]:
    """The files of rows, in the order they are made."""
    experiments = [Experiment("heldout.parquet", "tuned", "heldout", with_plain(ablated))]
    if published_too:
        experiments.append(
            Experiment("fitted.parquet", "tuned", "fit", with_plain(published(ablated)))
        )
    sides: dict[str, tuple[Role, Role]] = {
        "substitution": ("tuned", "base"),
        "mode_toggle": ("base", "tuned"),
    }
    for name, (receiver, donor) in sides.items():
        lanes = with_plain(patched[name])
        file = f"{name}.parquet"
        experiments.append(Experiment(file, receiver, "heldout", lanes, donor=donor))
    return experiments


@dataclass(frozen=True)
class _Job:
    """Models, prompts and settings of a pair."""

    inputs: PairInputs
    models: Mapping[Role, LoadedModel]
    prompts: Mapping[str, Sequence[Prompt]]
    settings: Ablation
    openers: tuple[str, ...]
    context: JobContext

    def rows(self, experiment: Experiment) -> Path:
        """Run an experiment, unless its finished file is there; return the file."""
        receiver = self.models[experiment.receiver]
        donor = None if experiment.donor is None else self.models[experiment.donor]
        asked = self._asked(experiment, receiver, donor)
        labels = Labels(self.context.run, self.context.pair, receiver.name)
        identity = self._identity(*filter(None, (experiment.receiver, experiment.donor)))
        key = job_key(
            asked, experiment.lanes, labels=labels, settings=self._answers, identity=identity
        )
        out = self.context.staging / f"{key}.parquet"
        if not is_whole(out):
            intervene(
                receiver,
                asked,
                experiment.lanes,
                labels=labels,
                settings=self._answers,
                staging=self.context.staging,
                out=out,
                identity=identity,
                donor=donor,
                chat=self.models["tuned"].tokenizer,
            )
        print(f"{experiment.file}: {len(experiment.lanes)} lanes x {len(asked)} prompts")
        return out

    def losses(self, lanes: Sequence[Lane]) -> Path:
        """Losses on plain text, unless their finished file is there; return the file."""
        tuned = self.models["tuned"]
        harmless = self._chosen("harmless", "heldout")
        texts = plain_texts(
            self.settings.plain_text,
            zoo_size=self.context.zoo_size,
            harmless=harmless,
            seed=self.context.seed,
        )
        asked = [
            Asked(text, np.array(encode(tuned.tokenizer, text.text, template="raw").ids))
            for text in texts
        ]
        key = job_key(
            asked,
            lanes,
            labels=Labels(self.context.run, self.context.pair, "losses"),
            settings=self._answers,
            identity=self._identity("tuned"),
        )
        out = self.context.staging / f"{key}.parquet"
        if not is_whole(out):
            text_losses(
                decoder_of(tuned),
                asked,
                lanes,
                token_budget=self._answers.token_budget,
                label=f"{tuned.name}, plain text",
                out=out,
            )
        print(f"{LOSSES_FILE}: {len(lanes)} lanes x {len(asked)} texts")
        return out

    @cached_property
    def _answers(self) -> InterveneSettings:
        return InterveneSettings(
            max_new=self.settings.max_new,
            token_budget=self.settings.token_budget,
            refusal_phrases=refusal_phrases_for(
                self.context.zoo_size is not None, published=AUDIT_PHRASES
            ),
            refusal_tokens=refusal_tokens(self.models["tuned"].tokenizer, self.openers),
        )

    def _asked(
        self, experiment: Experiment, receiver: LoadedModel, donor: LoadedModel | None
    ) -> list[Asked]:
        """Prompts of both conditions in the tuned model's template.

        Raises:
            UserError: Receiver and donor would read different tokens.
        """
        chosen = [prompt for name in CONDITIONS for prompt in self._chosen(name, experiment.split)]
        chat = self.models["tuned"]
        asked = _asked(chosen, receiver, chat=chat)
        if donor is None:
            return asked
        for read, other in zip(asked, _asked(chosen, donor, chat=chat), strict=True):
            if not np.array_equal(read.ids, other.ids):
                raise UserError(
                    f"ablation: {receiver.name} and {donor.name} read prompt '{read.prompt.id}' as "
                    "different tokens, so neither can be patched into the other; a pair needs one "
                    "tokenizer for the study ablation"
                )
        return asked

    def _chosen(self, condition: str, split: Split) -> list[Prompt]:
        most = self.settings.n_fitted if split == "fit" else self.settings.n_heldout
        name = self.inputs.prompts[condition].stem
        return asked_prompts(self.prompts[condition], condition, split, most, prompt_set=name)

    def _identity(self, *roles: Role) -> dict[str, Any]:
        """What decides rows beside prompts, lanes and settings."""
        hashes = {role: weights_hash(self.inputs.checkpoints[role]) for role in roles}
        return {"code": self.context.code, "weights": hashes}


def _asked(prompts: Sequence[Prompt], model: LoadedModel, *, chat: LoadedModel) -> list[Asked]:
    """Prompts in the template of another model, up to where answers begin."""
    source = {"chat_tokenizer": chat.tokenizer}
    lead = answer_lead(model.tokenizer, **source)
    ids = [
        encode_to_answer(model.tokenizer, prompt.text, lead=lead, **source).ids
        for prompt in prompts
    ]
    return [Asked(prompt, np.array(tokens)) for prompt, tokens in zip(prompts, ids, strict=True)]


def _say(pair: str, fitted: Fitted, planned: Sequence[Planned]) -> None:
    bands = "; ".join(f"{name} {' '.join(map(str, ls))}" for name, ls in fitted.bands.items())
    print(f"{pair}: {len(planned)} lanes; layers {bands}; width {fitted.d_model}")
