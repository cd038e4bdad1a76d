"""Refusal direction of one tuned model: candidates, scores, choice, and what it does held out."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import save_file

from actshift.edits import Ablate, Lane, Placed, Steer, everywhere
from actshift.engine.context import JobContext
from actshift.engine.intervene import decoder_of, intervene
from actshift.engine.intervene_plan import Asked, InterveneSettings, Labels, refusal_tokens
from actshift.engine.refusal_phrases import refusal_phrases_of
from actshift.errors import UserError
from actshift.hooks.lanes.generation import Decoder
from actshift.hooks.reading.first_tokens import FirstLogits, first_logits, last_inputs
from actshift.io.atomic import publishing
from actshift.io.manifest import weights_hash
from actshift.io.tables import write_table
from actshift.maths.directions import diff_in_means
from actshift.maths.frames import unit_column
from actshift.maths.scores import kl_rows, refusal_log_odds
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import read_prompts
from actshift.studies.refusal_direction.selection import Candidate, Choice, choose
from actshift.studies.refusal_direction.study import COLUMNS, RefusalDirection
from actshift.studies.refusal_direction.tables import candidate_rows, effect_lanes
from actshift.vocab import SPLITS

#: Files of the stage's folder.
TABLE, ROWS, ARRAYS = "refusal_direction.csv", "rows.parquet", "direction.safetensors"


@dataclass(frozen=True)
class _Side:
    """The prompts of one condition by split, filtered where directions are made and chosen."""

    by_split: dict[str, list[Asked]]

    def ids(self, split: str) -> list[np.ndarray]:
        return [asked.ids for asked in self.by_split[split]]


def refusal_direction(
    *,
    checkpoint: Path,
    prompts: Mapping[str, Path],
    settings: RefusalDirection,
    context: JobContext,
    out: Path,
) -> None:
    """Find the direction on `fit`, choose it on `select`, show on `heldout` what it does.

    Args:
        checkpoint: Folder of the tuned model.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
        settings: The study's section of the configuration.
        context: The job; its seed draws the prompts and the random controls.
        out: Folder to make: table of candidates, directions, held-out rows.

    Raises:
        UserError: Too few prompts, or none left of a condition once those are dropped that the
            model does not treat as expected.

    Source: Arditi et al. 2024 (arXiv 2406.11717), sections 2.3 and 2.4, appendices B and C.
    """
    pair, seed = context.pair, context.seed
    name = f"{pair}.tuned"
    loaded = load_model(checkpoint, name=name, dtype=context.dtype, device=context.device)
    tokens = refusal_tokens(loaded.tokenizer, settings.openers)
    scorer = _Scorer(decoder_of(loaded), tokens, settings.token_budget)
    drawn, width = _sides(loaded, prompts, settings, seed)
    sides = {name: _as_expected(side, scorer, name=name) for name, side in drawn.items()}
    raw = _differences(scorer.decoder, sides, width)
    candidates = _score(scorer, sides, raw)
    chosen = choose(candidates, settings, n_layers=len(loaded.blocks))
    result = _Result(pair, candidates, chosen, raw)
    with publishing(out) as partial:
        partial.mkdir()
        write_table(_candidate_table(result, sides, settings), partial / TABLE)
        save_file({"direction": result.direction, "candidates": raw}, partial / ARRAYS)
        intervene(
            loaded,
            [*sides["harmful"].by_split["heldout"], *sides["harmless"].by_split["heldout"]],
            effect_lanes(result.direction, result.best, n_layers=len(loaded.blocks), seed=seed),
            labels=Labels(context.run, pair, loaded.name),
            settings=InterveneSettings.of(
                settings.model_dump(), refusal_phrases=refusal_phrases_of(checkpoint), tokens=tokens
            ),
            staging=context.staging,
            out=partial / ROWS,
            identity={"code": context.code, "weights": weights_hash(checkpoint)},
        )
    _print_choice(result.best, chosen)


@dataclass(frozen=True)
class _Result:
    """All candidates of a model and the chosen one."""

    pair: str
    candidates: list[Candidate]
    chosen: Choice
    raw: Float[np.ndarray, "layer position d_model"]

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[self.chosen.index]

    @property
    def direction(self) -> Float[np.ndarray, " d_model"]:
        """Its difference of means."""
        return self.raw[self.best.layer, self.best.position]


def _candidate_table(
    result: _Result, sides: Mapping[str, _Side], settings: RefusalDirection
) -> pd.DataFrame:
    counts = {
        f"n_{split}_{name}": len(side.by_split[split])
        for split in ("fit", "select")
        for name, side in sides.items()
    }
    rows = candidate_rows(
        result.pair,
        result.candidates,
        result.chosen,
        settings,
        norms=np.linalg.norm(result.raw, axis=-1),
        counts=counts,
    )
    return pd.DataFrame(rows, columns=list(COLUMNS["refusal_direction"]))


def _sides(
    loaded: LoadedModel, prompts: Mapping[str, Path], settings: RefusalDirection, seed: int
) -> tuple[dict[str, _Side], int]:
    """Drawn and encoded prompts of both conditions, and how many tokens the template adds."""
    sides, width = {}, None
    lead = answer_lead(loaded.tokenizer)
    for name, path in prompts.items():
        rng = random.Random(f"refusal direction {name} {seed}")
        rows = [prompt for prompt in read_prompts(path) if prompt.condition == name]
        by_split: dict[str, list[Asked]] = {}
        for split in SPLITS:
            members = [prompt for prompt in rows if prompt.split == split]
            drawn = rng.sample(members, min(len(members), getattr(settings, f"n_{split}")))
            by_split[split] = []
            for prompt in drawn:
                encoded = encode_to_answer(loaded.tokenizer, prompt.text, lead=lead)
                after = len(encoded.ids) - encoded.instruction_end
                width = after if width is None else min(width, after)
                by_split[split].append(Asked(prompt, np.array(encoded.ids)))
            if not drawn:
                raise UserError(
                    f"refusal_direction: {path} has no '{name}' prompts in the split {split}"
                )
        sides[name] = _Side(by_split)
    return sides, max(1, width or 1)


@dataclass(frozen=True)
class _Scorer:
    """Scores of a model's first answer tokens, `[lane, prompt]` in nats."""

    decoder: Decoder
    refusal_tokens: tuple[int, ...]
    token_budget: int

    def log_odds(
        self, ids: Sequence[np.ndarray], lanes: Sequence[Lane]
    ) -> Float[np.ndarray, "lane prompt"]:
        """Refusal log-odds."""
        out = np.empty((len(lanes), len(ids)))
        for part in self._passes(ids, lanes):
            scores = [refusal_log_odds(logits, self.refusal_tokens) for logits in part.logits]
            out[part.lanes, part.prompts] = scores
        return out

    def kl(
        self, ids: Sequence[np.ndarray], lanes: Sequence[Lane]
    ) -> Float[np.ndarray, "lane prompt"]:
        """KL from the plain model."""
        plain = np.concatenate([part.logits[0] for part in self._passes(ids, [Lane("plain")])])
        out = np.empty((len(lanes), len(ids)))
        for part in self._passes(ids, lanes):
            scores = [kl_rows(plain[part.prompts], logits) for logits in part.logits]
            out[part.lanes, part.prompts] = scores
        return out

    def _passes(self, ids: Sequence[np.ndarray], lanes: Sequence[Lane]) -> Iterator[FirstLogits]:
        return first_logits(self.decoder, ids, lanes, token_budget=self.token_budget)


def _as_expected(side: _Side, scorer: _Scorer, *, name: str) -> _Side:
    """Keep harmful prompts that are refused and harmless ones that are not; held-out ones stay."""
    sign = 1.0 if name == "harmful" else -1.0
    kept = dict(side.by_split)
    for split in ("fit", "select"):
        odds = scorer.log_odds(side.ids(split), [Lane("plain")])[0]
        kept[split] = [
            asked
            for asked, score in zip(side.by_split[split], odds, strict=True)
            if sign * score > 0
        ]
        if not kept[split]:
            raise UserError(
                f"refusal_direction: the model has no {name} prompt of the split {split} that it "
                f"{'refuses' if sign > 0 else 'answers'} (first token, refusal_direction.openers); "
                "there is no refusal direction to find"
            )
    return _Side(kept)


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
    scorer: _Scorer,
    sides: Mapping[str, _Side],
    raw: Float[np.ndarray, "layer position d_model"],
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
    bypass = scorer.log_odds(harmful, cuts).mean(axis=1)
    induce = scorer.log_odds(harmless, adds).mean(axis=1)
    kl = scorer.kl(harmless, cuts).mean(axis=1)
    return [
        Candidate(position, layer, float(b), float(i), float(k))
        for (layer, position), b, i, k in zip(places, bypass, induce, kl, strict=True)
    ]


def _print_choice(best: Candidate, chosen: Choice) -> None:
    verdict = "passes" if not chosen.missed else f"none passes; misses {', '.join(chosen.missed)}"
    print(
        f"refusal direction: layer {best.layer}, position {best.position} ({verdict}): bypass "
        f"{best.bypass:.2f}, induce {best.induce:.2f}, KL {best.kl:.3f}"
    )
