"""Test 2 of the rank audit on one pair: frames, lanes, and every answer they give.

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
from actshift.studies.ablation.settings import AblationSettings, asked_prompts
from actshift.studies.ablation.texts import plain_texts, text_losses
from actshift.vocab import ROLES, Role, Split

LANES_FILE, DIRECTIONS_FILE, LOSSES_FILE = "lanes.csv", "directions.csv", "losses.parquet"
DIRECTIONS = ("frame", "layer", "direction", "singular_value", "share", "self_cosine")
#: Fields of the config that the frames and lanes are made by.
_STUDY = ("ks", "directions", "random_draws", "patch_draws")


@dataclass(frozen=True)
class PairInputs:
    """What one pair is made of.

    Attributes:
        run: Name of the run.
        pair: Name of the pair.
        checkpoints: Folder of each model.
        stores: Folders of the pair's activation stores.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
        zoo_size: Size of the zoo's language where the tuned model is of the zoo, else None.
    """

    run: str
    pair: str
    checkpoints: Mapping[Role, Path]
    stores: Sequence[Path]
    prompts: Mapping[str, Path]
    zoo_size: str | None


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
    settings: Mapping[str, Any],
    openers: Sequence[str],
    dtype: Any,
    device: Any,
    seed: int,
    code: str,
    staging: Path,
    out: Path,
) -> None:
    """Fit the frames, run every lane, write the pair's folder.

    Args:
        inputs: The pair.
        settings: Fields of the config's `ablation`.
        openers: How a refusal opens; their first tokens give the log-odds.
        dtype: Of the forward pass.
        device: Where to run.
        seed: Of random frames, resamples and the zoo's plain texts.
        code: Hash of the code.
        staging: Folder for unfinished rows and finished files.
        out: Folder to make (docs/ablation.md names its files).

    Raises:
        UserError: Prompts, stores and models do not fit together.

    Source: arXiv 2605.24583, Test 2 and Propositions 1 and 2.
    """
    prompts = {name: read_prompts(path) for name, path in inputs.prompts.items()}
    study: dict[str, Any] = {name: settings[name] for name in _STUDY}
    study |= {name: path.stem for name, path in inputs.prompts.items()}
    chosen = AblationSettings(**study, seed=seed)
    fitted = fit_pair(FolderStores(inputs.stores), prompts, chosen)
    ablated = [*sweep(fitted, chosen), *single_directions(fitted, chosen), *old_or_new(fitted)]
    patched = {name: patches(fitted, chosen, name) for name in ("substitution", "mode_toggle")}
    _say(inputs.pair, fitted, [*ablated, *patched["substitution"], *patched["mode_toggle"]])
    models: dict[Role, LoadedModel] = {
        role: load_model(
            inputs.checkpoints[role], name=f"{inputs.pair}.{role}", dtype=dtype, device=device
        )
        for role in ROLES
    }
    job = _Job(inputs, models, prompts, settings, tuple(openers), seed, code, staging)
    files = {one.file: job.rows(one) for one in _experiments(ablated, patched, settings)}
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
    ablated: Sequence[Planned], patched: Mapping[str, list[Planned]], settings: Mapping[str, Any]
) -> list[Experiment]:
    """The files of rows, in the order they are made."""
    found = [Experiment("heldout.parquet", "tuned", "heldout", with_plain(ablated))]
    if settings["published_protocol"]:
        found.append(Experiment("fitted.parquet", "tuned", "fit", with_plain(published(ablated))))
    sides: dict[str, tuple[Role, Role]] = {
        "substitution": ("tuned", "base"),
        "mode_toggle": ("base", "tuned"),
    }
    for name, (receiver, donor) in sides.items():
        lanes = with_plain(patched[name])
        found.append(Experiment(f"{name}.parquet", receiver, "heldout", lanes, donor=donor))
    return found


@dataclass(frozen=True)
class _Job:
    """Models, prompts and settings of a pair."""

    inputs: PairInputs
    models: Mapping[Role, LoadedModel]
    prompts: Mapping[str, Sequence[Prompt]]
    settings: Mapping[str, Any]
    openers: tuple[str, ...]
    seed: int
    code: str
    staging: Path

    def rows(self, one: Experiment) -> Path:
        """Run an experiment, unless its finished file is there; return the file."""
        receiver = self.models[one.receiver]
        donor = None if one.donor is None else self.models[one.donor]
        asked = self._asked(one, receiver, donor)
        labels = Labels(self.inputs.run, self.inputs.pair, receiver.name)
        identity = self._identity(*filter(None, (one.receiver, one.donor)))
        key = job_key(asked, one.lanes, labels=labels, settings=self._answers, identity=identity)
        out = self.staging / f"{key}.parquet"
        if not is_whole(out):
            intervene(
                receiver,
                asked,
                one.lanes,
                labels=labels,
                settings=self._answers,
                staging=self.staging,
                out=out,
                identity=identity,
                donor=donor,
                chat=self.models["tuned"].tokenizer,
            )
        print(f"{one.file}: {len(one.lanes)} lanes x {len(asked)} prompts")
        return out

    def losses(self, lanes: Sequence[Lane]) -> Path:
        """Losses on plain text, unless their finished file is there; return the file."""
        tuned = self.models["tuned"]
        harmless = self._chosen("harmless", "heldout")
        texts = plain_texts(
            self.settings["plain_text"],
            zoo_size=self.inputs.zoo_size,
            harmless=harmless,
            seed=self.seed,
        )
        asked = [
            Asked(one, np.array(encode(tuned.tokenizer, one.text, template="raw").ids))
            for one in texts
        ]
        key = job_key(
            asked,
            lanes,
            labels=Labels(self.inputs.run, self.inputs.pair, "losses"),
            settings=self._answers,
            identity=self._identity("tuned"),
        )
        out = self.staging / f"{key}.parquet"
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
        return InterveneSettings.of(
            self.settings,
            refusal_phrases=refusal_phrases_for(
                self.inputs.zoo_size is not None, published=AUDIT_PHRASES
            ),
            tokens=refusal_tokens(self.models["tuned"].tokenizer, self.openers),
        )

    def _asked(
        self, one: Experiment, receiver: LoadedModel, donor: LoadedModel | None
    ) -> list[Asked]:
        """Prompts of both conditions in the tuned model's template.

        Raises:
            UserError: Receiver and donor would read different tokens.
        """
        chosen = [prompt for name in CONDITIONS for prompt in self._chosen(name, one.split)]
        chat = self.models["tuned"]
        asked = _asked(chosen, receiver, chat=chat)
        if donor is None:
            return asked
        for mine, other in zip(asked, _asked(chosen, donor, chat=chat), strict=True):
            if not np.array_equal(mine.ids, other.ids):
                raise UserError(
                    f"ablation: {receiver.name} and {donor.name} read prompt '{mine.prompt.id}' as "
                    "different tokens, so neither can be patched into the other; a pair needs one "
                    "tokenizer for the study ablation"
                )
        return asked

    def _chosen(self, condition: str, split: Split) -> list[Prompt]:
        most = self.settings["n_fitted" if split == "fit" else "n_heldout"]
        name = self.inputs.prompts[condition].stem
        return asked_prompts(self.prompts[condition], condition, split, most, prompt_set=name)

    def _identity(self, *roles: Role) -> dict[str, Any]:
        """What decides rows beside prompts, lanes and settings."""
        hashes = {role: weights_hash(self.inputs.checkpoints[role]) for role in roles}
        return {"code": self.code, "weights": hashes}


def _asked(prompts: Sequence[Prompt], model: LoadedModel, *, chat: LoadedModel) -> list[Asked]:
    """Prompts in the template of another model, up to where answers begin."""
    source = {"chat_tokenizer": chat.tokenizer}
    lead = answer_lead(model.tokenizer, **source)
    ids = [encode_to_answer(model.tokenizer, one.text, lead=lead, **source).ids for one in prompts]
    return [Asked(one, np.array(found)) for one, found in zip(prompts, ids, strict=True)]


def _say(pair: str, fitted: Fitted, planned: Sequence[Planned]) -> None:
    bands = "; ".join(f"{name} {' '.join(map(str, ls))}" for name, ls in fitted.bands.items())
    print(f"{pair}: {len(planned)} lanes; layers {bands}; width {fitted.d_model}")
