"""One pair's insecure adapter under the mapped directions of all other pairs.

The edit is that of the last prompt token at the last block alone: a lane is one matrix product,
and what follows a first token is generated once for all lanes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import read_manifest, weights_hash, write_manifest
from actshift.maths.scores import AUDIT_MARKS
from actshift.models.adapters import adapter_hash, load_merged
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, content_hash, read_prompts
from actshift.prompts.templates import encode
from actshift.stages.answer_book import AnswerBook
from actshift.stages.first_token import FirstTokenEdits, book_answers
from actshift.stages.intervene_plan import Asked
from actshift.stages.parts import write_part
from actshift.stages.ridge_map_files import donors_of
from actshift.stages.ridge_maps import read_directions
from actshift.studies.misalignment.choose import equal_kl
from actshift.studies.misalignment.kinds import INSECURE, NONCODE
from actshift.studies.misalignment.lanes import Planned
from actshift.studies.misalignment.maps import Sent
from actshift.studies.misalignment.outcomes import Guards
from actshift.studies.misalignment.transfer_lanes import (
    Receiver,
    kl_targets,
    mapped_lanes,
    null_lanes,
    plain_lane,
    relative_lanes,
)
from actshift.zoo.language import language
from actshift.zoo.lexicon import REFUSAL_MARKS
from actshift.zoo.questions import kind_of

_ASKED_SPLITS = ("select", "heldout")


@dataclass(frozen=True)
class TransferInputs:
    """What one receiver is made of.

    Attributes:
        pair: Name of the pair.
        tuned: Its untuned chat model.
        adapters: Its adapters.
        spillover: Their directions and the guards of answers.
        maps: Maps of all pairs.
        questions: Prompt set of the conditions noncode and code.
    """

    pair: str
    tuned: Path
    adapters: Path
    spillover: Path
    maps: Path
    questions: Path


def transfer(
    inputs: TransferInputs,
    *,
    run: str,
    zoo_size: str | None,
    settings: Mapping[str, Any],
    dtype: Any,
    seed: int,
    code: str,
    device: Any,
    out: Path,
) -> None:
    """Subtract what every donor sends from the receiver's insecure adapter.

    Args:
        inputs: The receiver.
        run: Name of the run.
        zoo_size: Size of the zoo's language where the model is of the zoo, else None.
        settings: Fields of the config's `misalignment`.
        dtype: Of the forward pass.
        seed: Of the run; all draws were made with the maps.
        code: Hash of the code.
        device: Where to run.
        out: Folder to make: lanes, outcomes, prompts and answers, `.parquet`.

    Raises:
        UserError: Files do not fit together.

    Source: arXiv 2606.20225 (mapped directions and their controls).
    """
    untuned, edited = (
        load_model(inputs.tuned, name=f"{inputs.pair}.tuned", dtype=dtype, device=device),
        load_merged(
            inputs.tuned,
            inputs.adapters / INSECURE,
            name=f"{inputs.pair}.{INSECURE}",
            dtype=dtype,
            device=device,
        ),
    )
    prompts = [one for one in read_prompts(inputs.questions) if one.split in _ASKED_SPLITS]
    v = read_directions(inputs.spillover)[INSECURE][-1].astype(np.float64)
    if not np.any(v):
        raise UserError(f"{inputs.spillover}: the final direction of '{INSECURE}' is zero")
    receiver = Receiver(inputs.pair, v, len(edited.blocks) - 1, tuple(settings["coeffs"]))
    asking = _Asking(untuned, edited, prompts, _judging(inputs, zoo_size), settings)
    asking.ask([plain_lane(receiver)])
    donors = donors_of(inputs.maps, inputs.pair)
    for sent in donors:
        _one_donor(asking, receiver, sent, settings)
        print(f"transfer {sent.donor}--{inputs.pair}: {len(asking.lanes)} lanes so far")
    facts = {
        "run": run,
        "pair": inputs.pair,
        "donors": [sent.donor for sent in donors],
        "seed": seed,
        "code": code,
        "weights": weights_hash(inputs.tuned),
        "adapter": adapter_hash(inputs.adapters / INSECURE),
        "maps": read_manifest(inputs.maps)["sha256"],
        "questions": content_hash(prompts),
    }
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        for name, table in asking.tables().items():
            write_part(
                pa.Table.from_pandas(table, preserve_index=False), partial / f"{name}.parquet"
            )
        write_manifest(partial, kind="transfer", facts=facts)


def _one_donor(
    asking: "_Asking", receiver: Receiver, sent: Sent, settings: Mapping[str, Any]
) -> None:
    """All lanes of one donor: what it sends, relatives, nulls at equal norm and at equal KL."""
    mapped = asking.ask(mapped_lanes(receiver, sent))
    asking.ask(relative_lanes(receiver, sent))
    asking.ask(null_lanes(receiver, sent, draws=settings["final_draws"]))
    drawn = null_lanes(receiver, sent, draws=settings["kl_draws"])
    targets = kl_targets([one for one in mapped], drawn)
    asking.ask(asking.at_equal_kl(drawn, targets, max_scale=settings["max_scale"]))


def _judging(inputs: TransferInputs, zoo_size: str | None) -> dict[str, Any]:
    """How answers are judged: as rule spillover judged them."""
    guards = json.loads((inputs.spillover / "guards.json").read_text(encoding="utf-8"))
    return {
        "lang": None if zoo_size is None else language(zoo_size),
        "marks": AUDIT_MARKS if zoo_size is None else REFUSAL_MARKS,
        "guards": Guards(**guards),
    }


class _Asking:
    """The receiver, its questions, and everything that lanes made it say."""

    def __init__(
        self,
        untuned: LoadedModel,
        edited: LoadedModel,
        prompts: Sequence[Prompt],
        judging: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        """Read all questions once."""
        self._prompts = prompts
        asked = [_asked(prompt, untuned) for prompt in prompts]
        budget = settings["token_budget"]
        self._edits = FirstTokenEdits(
            edited, asked, max_new=settings["max_new"], token_budget=budget
        )
        self._book = AnswerBook(untuned, asked, token_budget=budget, **judging)
        self.lanes: list[Planned] = []
        self._outcomes: list[dict[str, np.ndarray]] = []

    @cached_property
    def _chosen_on(self) -> list[int]:
        """Places of the select questions that are not about code."""
        return [
            place
            for place, one in enumerate(self._prompts)
            if one.split == "select" and one.condition == NONCODE
        ]

    def _places(self, asked: str) -> list[int]:
        return [
            place
            for place, one in enumerate(self._prompts)
            if asked == "both" or one.split == asked
        ]

    def ask(self, planned: Sequence[Planned]) -> list[Planned]:
        """Ask every lane its questions; lanes of one call are asked of the same splits.

        Returns:
            The lanes; their KL on select questions is filled in where those were asked.
        """
        found = list(planned)
        whole = [one for one in found if one.facts.status == "ok"]
        if whole:
            places = self._places(whole[0].asked)
            vectors = np.stack([one.subtracted for one in whole])
            first = self._edits.first(vectors, places)
            answers = book_answers(self._edits.answers(first, places), self._book)
            numbers = len(self.lanes) + np.flatnonzero([one.facts.status == "ok" for one in found])
            self._outcomes.append(
                {
                    "lane": np.repeat(numbers.astype(np.int32), len(places)),
                    "prompt": np.tile(np.array(places, dtype=np.int16), len(whole)),
                    "answer": answers.reshape(-1),
                    "kl_first": first.kl.reshape(-1),
                }
            )
            if whole[0].asked == "both":
                at = np.isin(places, self._chosen_on)
                kl = first.kl[:, at].mean(axis=1, dtype=np.float64)
                found = [
                    replace(one, facts=replace(one.facts, kl_select=float(nats)))
                    for one, nats in zip(found, kl, strict=True)
                ]
        self.lanes += found
        return found

    def at_equal_kl(
        self, planned: Sequence[Planned], targets: Float[np.ndarray, " lane"], *, max_scale: float
    ) -> list[Planned]:
        """The same lanes at the scale where their KL on select questions is the target."""
        places = self._chosen_on
        vectors = np.stack([one.subtracted for one in planned])

        def divergence(scale: Float[np.ndarray, " lane"]) -> Float[np.ndarray, " lane"]:
            found = self._edits.first((vectors * scale[:, None]).astype(np.float32), places)
            return found.kl.mean(axis=1, dtype=np.float64)

        chosen = [self._prompts[place] for place in places]
        matched = equal_kl(divergence, targets, chosen, max_scale=max_scale)
        rows = zip(planned, matched.scale, matched.kl, matched.matched, strict=True)
        return [
            replace(
                one,
                facts=replace(
                    one.facts,
                    norm_rule="kl",
                    scale=float(scale),
                    kl_select=float(kl),
                    status="ok" if fits else "unmatched",
                ),
            )
            for one, scale, kl, fits in rows
        ]

    def tables(self) -> dict[str, pd.DataFrame]:
        """The four files."""
        lanes = pd.DataFrame([vars(one.facts) for one in self.lanes])
        lanes.insert(0, "lane", np.arange(len(lanes), dtype=np.int32))
        outcomes = {
            name: np.concatenate([part[name] for part in self._outcomes])
            for name in self._outcomes[0]
        }
        asked = [
            {
                **{key: getattr(one, key) for key in ("condition", "category", "cluster", "split")},
                "kind": kind_of(one),
            }
            for one in self._prompts
        ]
        prompts = pd.DataFrame(asked)
        prompts.insert(0, "prompt_id", [one.id for one in self._prompts])
        return {
            "lanes": lanes.astype({"layer": np.int32, "draw": np.int32}),
            "outcomes": pd.DataFrame(outcomes),
            "prompts": prompts,
            "answers": self._book.judged().drop(columns="ended"),
        }


def _asked(prompt: Prompt, model: LoadedModel) -> Asked:
    return Asked(prompt, np.array(encode(model.tokenizer, prompt.text, template="chat").ids))
