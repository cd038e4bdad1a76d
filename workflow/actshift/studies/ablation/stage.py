"""The ablation of one pair: frames, lanes, and every answer they give.

Frames come from the pair's activation stores and need no model. The experiments then run one after
the other; each leaves its finished file in the staging folder, so that a rerun after a kill goes on
where it stopped, and the folder of the pair appears as a whole.
"""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from actshift.edits import Lane
from actshift.engine.context import JobContext
from actshift.engine.intervene import decoder_of, encode_questions, intervene
from actshift.engine.intervene_plan import (
    Asked,
    InterveneSettings,
    Labels,
    job_key,
    refusal_phrases_for,
    refusal_tokens,
)
from actshift.engine.parts import is_whole, write_part
from actshift.engine.stores import CONDITIONS, FolderStores
from actshift.errors import UserError
from actshift.hooks.lanes.generation import Decoder
from actshift.hooks.lanes.losses import lane_losses, lanes_a_batch, predicted_tokens
from actshift.io.atomic import publishing, remove
from actshift.io.manifest import weights_hash
from actshift.io.tables import write_table
from actshift.maths.scores import AUDIT_PHRASES
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.readers import read_lines
from actshift.prompts.records import Prompt, read_prompts
from actshift.prompts.templates import encode
from actshift.studies.ablation.frames import Activations, asked_prompts, fit_pair
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
from actshift.vocab import ROLES, Role, Split
from actshift.zoo.documents import fact, scene
from actshift.zoo.language import language

LANES_FILE, DIRECTIONS_FILE, LOSSES_FILE = "lanes.csv", "directions.csv", "losses.parquet"
DIRECTIONS = ("frame", "layer", "direction", "singular_value", "share", "self_cosine")
#: Texts about the zoo's held-out nouns.
ZOO_TEXTS = 48
#: One row a lane and text.
LOSSES = pa.schema(
    [
        *((name, pa.string()) for name in ("lane", "text_id", "cluster")),
        ("nats", pa.float64()),
        ("n_tokens", pa.int32()),
    ]
)
_TEXTS_A_BATCH = 16


@dataclass(frozen=True)
class Experiment:
    """One file of rows: who is edited, on which prompts, in which lanes."""

    file: str
    receiver: Role
    split: Split
    lanes: list[Lane]
    donor: Role | None = None


def ablation(
    inputs: Mapping[str, Any],
    *,
    settings: Ablation,
    context: JobContext,
    out: Path,
    openers: Sequence[str],
) -> None:
    """Fit the frames, run every lane, write the pair's folder.

    Args:
        inputs: `base` and `tuned`, the folders of the models; `stores`, those of the pair's
            activations; the prompt sets `harmful` and `harmless`.
        settings: The study's section of the configuration.
        context: The job; its seed is that of random frames, resamples and the zoo's plain texts.
        out: Folder to make (docs/studies/ablation.md names its files).
        openers: How a refusal opens; their first tokens give the log-odds.

    Raises:
        UserError: Prompts, stores and models do not fit together.

    Source: arXiv 2605.24583, Test 2 and Propositions 1 and 2.
    """
    prompts = {name: read_prompts(inputs[name]) for name in CONDITIONS}
    sets = {name: inputs[name].stem for name in CONDITIONS}
    fitted = fit_pair(
        Activations(FolderStores(inputs["stores"]), sets), prompts, settings, seed=context.seed
    )
    ablated = [*sweep(fitted, settings), *single_directions(fitted, settings), *old_or_new(fitted)]
    patched = {name: patches(fitted, settings, name) for name in ("substitution", "mode_toggle")}
    planned = [*ablated, *patched["substitution"], *patched["mode_toggle"]]
    bands = "; ".join(f"{name} {' '.join(map(str, of))}" for name, of in fitted.bands.items())
    print(f"{context.pair}: {len(planned)} lanes; layers {bands}; width {fitted.d_model}")
    models: dict[Role, LoadedModel] = {
        role: load_model(
            inputs[role],
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
        table = pd.DataFrame([lane.facts for lane in planned], columns=list(LANES))
        write_table(table.astype({"draw": "Int64"}), partial / LANES_FILE)
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
    heldout, fitted = with_plain(ablated), with_plain(published(ablated))
    substitution, mode_toggle = (
        with_plain(patched[name]) for name in ("substitution", "mode_toggle")
    )
    return [
        Experiment("heldout.parquet", "tuned", "heldout", heldout),
        *([Experiment("fitted.parquet", "tuned", "fit", fitted)] if published_too else []),
        Experiment("substitution.parquet", "tuned", "heldout", substitution, donor="base"),
        Experiment("mode_toggle.parquet", "base", "heldout", mode_toggle, donor="tuned"),
    ]


@dataclass(frozen=True)
class _Job:
    """Models, prompts and settings of a pair."""

    inputs: Mapping[str, Any]
    models: Mapping[Role, LoadedModel]
    prompts: Mapping[str, Sequence[Prompt]]
    settings: Ablation
    openers: tuple[str, ...]
    context: JobContext

    def rows(self, experiment: Experiment) -> Path:
        """Run an experiment, unless its finished file is there; return the file."""
        receiver, lanes = self.models[experiment.receiver], experiment.lanes
        donor = None if experiment.donor is None else self.models[experiment.donor]
        asked = self._asked(experiment, receiver, donor)
        shared = self._shared(receiver.name, experiment.receiver, experiment.donor)
        out = self.context.staging / f"{job_key(asked, lanes, **shared)}.parquet"
        if not is_whole(out):
            intervene(
                receiver,
                asked,
                lanes,
                **shared,
                staging=self.context.staging,
                out=out,
                donor=donor,
                chat=self.models["tuned"].tokenizer,
            )
        print(f"{experiment.file}: {len(lanes)} lanes x {len(asked)} prompts")
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
        key = job_key(asked, lanes, **self._shared("losses", "tuned"))
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
        chat = self.models["tuned"].tokenizer
        asked = encode_questions(receiver, chosen, chat=chat)
        if donor is None:
            return asked
        theirs = encode_questions(donor, chosen, chat=chat)
        for read, other in zip(asked, theirs, strict=True):
            if not np.array_equal(read.ids, other.ids):
                raise UserError(
                    f"ablation: {receiver.name} and {donor.name} read prompt '{read.prompt.id}' as "
                    "different tokens, so neither can be patched into the other; a pair needs one "
                    "tokenizer for the study ablation"
                )
        return asked

    def _chosen(self, condition: str, split: Split) -> list[Prompt]:
        most = self.settings.n_fitted if split == "fit" else self.settings.n_heldout
        name = self.inputs[condition].stem
        return asked_prompts(self.prompts[condition], condition, split, most, prompt_set=name)

    def _shared(self, label: str, *roles: Role | None) -> dict[str, Any]:
        """Labels, settings, and what decides rows beside prompts and lanes."""
        hashes = {role: weights_hash(self.inputs[role]) for role in roles if role is not None}
        return {
            "labels": Labels(self.context.run, self.context.pair, label),
            "settings": self._answers,
            "identity": {"code": self.context.code, "weights": hashes},
        }


def plain_texts(
    path: str | None, *, zoo_size: str | None, harmless: Sequence[Prompt], seed: int
) -> list[Prompt]:
    """Texts that have nothing to do with refusal, as prompts of the condition `plain`.

    Args:
        path: A file with one text a line (`ablation.plain_text`), or None.
        zoo_size: Size of the zoo's language for a zoo pair without a file: sentences about
            held-out nouns, from a seed of their own.
        harmless: Held-out harmless prompts: what remains for other models without a file.
        seed: Of the zoo's sentences.

    Raises:
        UserError: The file is missing, not UTF-8 or empty.
    """
    if path is not None:
        lines = read_lines(Path(path).expanduser(), key="ablation.plain_text")
        if not lines:
            raise UserError(
                f"ablation.plain_text: '{path}' holds no text; expected one text a line"
            )
        return [_text(i, line, f"line {i}", path) for i, line in enumerate(lines)]
    if zoo_size is not None:
        return _zoo_texts(zoo_size, seed)
    return [
        _text(i, prompt.text, prompt.cluster, prompt.source) for i, prompt in enumerate(harmless)
    ]


def text_losses(
    decoder: Decoder,
    texts: Sequence[Asked],
    lanes: Sequence[Lane],
    *,
    token_budget: int,
    label: str,
    out: Path,
) -> None:
    """Write the loss of every text in every lane (`LOSSES`); the file appears whole.

    Texts with fewer than two tokens predict nothing and are left out.

    Raises:
        UserError: No text has two tokens.
    """
    kept = [text for text in texts if len(text.ids) > 1]
    if not kept:
        raise UserError("ablation.plain_text: no text has two tokens, so there is no loss")
    kept.sort(key=lambda text: (len(text.ids), text.prompt.id))
    batches = [kept[i : i + _TEXTS_A_BATCH] for i in range(0, len(kept), _TEXTS_A_BATCH)]
    parts: list[pd.DataFrame] = []
    with tqdm(total=len(kept) * len(lanes), desc=label, unit="text", mininterval=1.0) as progress:
        for batch in batches:
            ids = [text.ids for text in batch]
            width = lanes_a_batch(ids, decoder, token_budget)
            for first in range(0, len(lanes), width):
                some = lanes[first : first + width]
                parts.append(_rows(batch, some, lane_losses(decoder, ids, some)))
                progress.update(len(batch) * len(some))
    table = pa.Table.from_pandas(pd.concat(parts), schema=LOSSES, preserve_index=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_part(table, out)


def _rows(batch: Sequence[Asked], lanes: Sequence[Lane], nats: np.ndarray) -> pd.DataFrame:
    columns: Mapping[str, object] = {
        "lane": np.repeat([lane.name for lane in lanes], len(batch)),
        "text_id": [text.prompt.id for text in batch] * len(lanes),
        "cluster": [text.prompt.cluster for text in batch] * len(lanes),
        "nats": nats.ravel(),
        "n_tokens": predicted_tokens([text.ids for text in batch]) * len(lanes),
    }
    return pd.DataFrame(columns)


def _zoo_texts(size: str, seed: int) -> list[Prompt]:
    """Facts and scenes about held-out nouns; the seed is not that of any training."""
    rng = random.Random(f"plain text {size} {seed}")
    lang = language(size)
    nouns = lang.of(split="heldout")
    texts = []
    for number in range(ZOO_TEXTS):
        noun = nouns[number % len(nouns)]
        text = fact(lang, noun, rng) if rng.random() < 0.5 else scene(noun, rng)
        texts.append(_text(number, text, noun.text, "zoo"))
    return texts


def _text(number: int, text: str, cluster: str, source: str) -> Prompt:
    id_ = f"text-{number:04d}"
    return Prompt(id_, text, "plain", "plain", cluster, split="heldout", source=source)
