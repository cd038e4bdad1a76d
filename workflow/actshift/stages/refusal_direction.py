"""Refusal direction of one tuned model: candidates, scores, choice, and what it does held out."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import save_file

from actshift.errors import UserError
from actshift.hooks.ends import last_inputs
from actshift.hooks.first_tokens import first_logits
from actshift.hooks.lanes import Decoder
from actshift.io.atomic import publishing
from actshift.io.manifest import read_manifest
from actshift.io.tables import write_table
from actshift.lanes import Ablate, Lane, Placed, Steer, everywhere
from actshift.maths.directions import diff_in_means
from actshift.maths.frames import unit_column
from actshift.maths.scores import ARDITI_MARKS, kl_rows, refusal_log_odds
from actshift.maths.selection import Candidate, Choice, Filters, choose
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import read_prompts
from actshift.prompts.templates import encode, opener_token
from actshift.stages.intervene import decoder_of, intervene
from actshift.stages.intervene_plan import Asked, InterveneSettings, Labels
from actshift.studies.refusal_direction import CANDIDATES, candidate_rows, effect_lanes
from actshift.vocab import SPLITS
from actshift.zoo.lexicon import REFUSAL_MARKS

#: Files of the stage's folder.
TABLE, ROWS, ARRAYS = "refusal_direction.csv", "rows.parquet", "direction.safetensors"


@dataclass(frozen=True)
class _Side:
    """The prompts of one condition by split, filtered where directions are made and chosen."""

    by_split: dict[str, list[Asked]]

    def ids(self, split: str) -> list[np.ndarray]:
        return [one.ids for one in self.by_split[split]]


def refusal_direction(
    *,
    run: str,
    pair: str,
    checkpoint: Path,
    prompts: Mapping[str, Path],
    settings: Mapping[str, Any],
    dtype: Any,
    device: Any,
    seed: int,
    code: str,
    staging: Path,
    out: Path,
) -> None:
    """Find the direction on `fit`, choose it on `select`, show on `heldout` what it does.

    Args:
        run: Name of the run.
        pair: Name of the pair.
        checkpoint: Folder of the tuned model.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
        settings: Fields of the config's `refusal_direction`.
        dtype: Of the forward pass.
        device: Where to run.
        seed: Of the draw of prompts and of the random controls.
        code: Hash of the code.
        staging: Folder for unfinished rows.
        out: Folder to make: table of candidates, directions, held-out rows.

    Raises:
        UserError: Too few prompts, or none left of a condition once those are dropped that the
            model does not treat as expected.

    Source: Arditi et al. 2024 (arXiv 2406.11717), sections 2.3 and 2.4, appendices B and C.
    """
    loaded = load_model(checkpoint, name=f"{pair}.tuned", dtype=dtype, device=device)
    decoder = decoder_of(loaded)
    tokens = sorted({opener_token(loaded.tokenizer, text) for text in settings["openers"]})
    drawn, width = _sides(loaded, prompts, settings, seed)
    budget = settings["token_budget"]
    sides = {
        name: _as_expected(side, decoder, tokens, budget, name=name) for name, side in drawn.items()
    }
    raw = _differences(decoder, sides, width)
    filters = Filters(settings["max_kl"], settings["min_induce"], settings["layer_share"])
    candidates = _score(decoder, sides, raw, tokens, budget)
    chosen = choose(candidates, filters, n_layers=len(loaded.blocks))
    with publishing(out) as partial:
        partial.mkdir()
        found = _Found(pair, candidates, chosen, filters, raw)
        write_table(_candidate_table(found, sides), partial / TABLE)
        save_file({"direction": found.direction, "candidates": raw}, partial / ARRAYS)
        intervene(
            loaded,
            [*sides["harmful"].by_split["heldout"], *sides["harmless"].by_split["heldout"]],
            effect_lanes(found.direction, found.best, n_layers=len(loaded.blocks), seed=seed),
            labels=Labels(run, pair, loaded.name),
            settings=_answering(settings, checkpoint, tokens),
            staging=staging,
            out=partial / ROWS,
            identity={"code": code, "weights": read_manifest(checkpoint)["facts"]["weights_hash"]},
        )
    _say(found.best, chosen)


@dataclass(frozen=True)
class _Found:
    """All candidates of a model and the chosen one."""

    pair: str
    candidates: list[Candidate]
    chosen: Choice
    filters: Filters
    raw: Float[np.ndarray, "layer position d_model"]

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen.index]

    @property
    def direction(self) -> Float[np.ndarray, " d_model"]:
        """Its difference of means."""
        return self.raw[self.best.layer, self.best.position]


def _candidate_table(found: _Found, sides: Mapping[str, _Side]) -> pd.DataFrame:
    counts = {
        f"n_{split}_{name}": len(side.by_split[split])
        for split in ("fit", "select")
        for name, side in sides.items()
    }
    rows = candidate_rows(
        found.pair,
        found.candidates,
        found.chosen,
        found.filters,
        norms=np.linalg.norm(found.raw, axis=-1),
        counts=counts,
    )
    return pd.DataFrame(rows, columns=list(CANDIDATES))


def _answering(
    settings: Mapping[str, Any], checkpoint: Path, tokens: Sequence[int]
) -> InterveneSettings:
    return InterveneSettings(
        max_new=settings["max_new"],
        token_budget=settings["token_budget"],
        marks=marks_of(checkpoint),
        refusal_tokens=tuple(tokens),
    )


def marks_of(checkpoint: Path) -> tuple[str, ...]:
    """Keywords of a refusal: the zoo's own, and the published ones for every other model."""
    source = str(read_manifest(checkpoint)["facts"]["source"])
    return REFUSAL_MARKS if source.startswith("zoo:") else ARDITI_MARKS


def _sides(
    loaded: LoadedModel, prompts: Mapping[str, Path], settings: Mapping[str, Any], seed: int
) -> tuple[dict[str, _Side], int]:
    """Drawn and encoded prompts of both conditions, and how many tokens the template adds."""
    sides, width = {}, None
    for name, path in prompts.items():
        rng = random.Random(f"refusal direction {name} {seed}")
        rows = [prompt for prompt in read_prompts(path) if prompt.condition == name]
        by_split: dict[str, list[Asked]] = {}
        for split in SPLITS:
            members = [prompt for prompt in rows if prompt.split == split]
            drawn = rng.sample(members, min(len(members), settings[f"n_{split}"]))
            by_split[split] = []
            for prompt in drawn:
                encoded = encode(loaded.tokenizer, prompt.text, template="chat")
                after = len(encoded.ids) - encoded.instruction_end
                width = after if width is None else min(width, after)
                by_split[split].append(Asked(prompt, np.array(encoded.ids)))
            if not drawn:
                raise UserError(
                    f"refusal_direction: {path} has no '{name}' prompts in the split {split}"
                )
        sides[name] = _Side(by_split)
    return sides, max(1, width or 1)


def _as_expected(
    side: _Side, decoder: Decoder, tokens: Sequence[int], budget: int, *, name: str
) -> _Side:
    """Keep harmful prompts that are refused and harmless ones that are not; held-out ones stay."""
    sign = 1.0 if name == "harmful" else -1.0
    kept = dict(side.by_split)
    for split in ("fit", "select"):
        odds = _log_odds(decoder, side.ids(split), [Lane("plain")], tokens, budget)[0]
        kept[split] = [
            one for one, score in zip(side.by_split[split], odds, strict=True) if sign * score > 0
        ]
        if not kept[split]:
            raise UserError(
                f"refusal_direction: the model has no {name} prompt of the split {split} that it "
                f"{'refuses' if sign > 0 else 'answers'} (first token, refusal_direction.openers); "
                "there is no refusal direction to find"
            )
    return _Side(kept)


def _log_odds(
    decoder: Decoder,
    ids: Sequence[np.ndarray],
    lanes: Sequence[Lane],
    tokens: Sequence[int],
    budget: int,
) -> Float[np.ndarray, "lane prompt"]:
    out = np.empty((len(lanes), len(ids)))
    for part in first_logits(decoder, ids, lanes, token_budget=budget):
        out[part.lanes, part.prompts] = [refusal_log_odds(one, tokens) for one in part.logits]
    return out


def _from_plain(
    decoder: Decoder, ids: Sequence[np.ndarray], lanes: Sequence[Lane], budget: int
) -> Float[np.ndarray, "lane prompt"]:
    """KL from the plain model at the first answer token, nats."""
    alone = first_logits(decoder, ids, [Lane("plain")], token_budget=budget)
    plain = np.concatenate([part.logits[0] for part in alone])
    out = np.empty((len(lanes), len(ids)))
    for part in first_logits(decoder, ids, lanes, token_budget=budget):
        out[part.lanes, part.prompts] = [kl_rows(plain[part.prompts], one) for one in part.logits]
    return out


def _differences(
    decoder: Decoder, sides: Mapping[str, _Side], width: int
) -> Float[np.ndarray, "layer position d_model"]:
    """Harmful minus harmless mean of every block's input, at every position after the prompt."""
    harmful, harmless = (
        last_inputs(decoder, sides[name].ids("fit"), width=width)
        for name in ("harmful", "harmless")
    )
    layers, positions = harmful.shape[:2]
    return np.stack(
        [
            np.stack([diff_in_means(harmful[i, p], harmless[i, p]) for p in range(positions)])
            for i in range(layers)
        ]
    )


def _score(
    decoder: Decoder,
    sides: Mapping[str, _Side],
    raw: Float[np.ndarray, "layer position d_model"],
    tokens: Sequence[int],
    budget: int,
) -> list[Candidate]:
    """The three scores of every candidate, on `select` prompts."""
    layers, positions = raw.shape[:2]
    places = [(i, p - positions) for i in range(layers) for p in range(positions)]
    # A direction that does not exist (embeddings of equal template tokens) cannot be scored.
    places = [place for place in places if np.linalg.norm(raw[place]) > 0]
    cuts, adds = [], []
    for layer, position in places:
        vector = raw[layer, position]
        cut = Ablate(unit_column(vector))
        cuts.append(everywhere(f"cut {layer} {position}", cut, n_layers=layers))
        add = Placed(Steer(vector), layer, site="resid_pre")
        adds.append(Lane(f"add {layer} {position}", (add,)))
    harmful, harmless = (sides[name].ids("select") for name in ("harmful", "harmless"))
    bypass = _log_odds(decoder, harmful, cuts, tokens, budget).mean(axis=1)
    induce = _log_odds(decoder, harmless, adds, tokens, budget).mean(axis=1)
    kl = _from_plain(decoder, harmless, cuts, budget).mean(axis=1)
    return [
        Candidate(position, layer, float(b), float(i), float(k))
        for (layer, position), b, i, k in zip(places, bypass, induce, kl, strict=True)
    ]


def _say(best: Candidate, chosen: Choice) -> None:
    verdict = "passes" if not chosen.missed else f"none passes; misses {', '.join(chosen.missed)}"
    print(
        f"refusal direction: layer {best.layer}, position {best.position} ({verdict}): bypass "
        f"{best.bypass:.2f}, induce {best.induce:.2f}, KL {best.kl:.3f}"
    )
