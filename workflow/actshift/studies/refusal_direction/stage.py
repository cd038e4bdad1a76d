"""Refusal direction of one tuned model: candidates, scores, choice, and what it does held out."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import save_file

from actshift.edits import Ablate, Lane, Placed, Steer, everywhere
from actshift.engine.context import JobContext
from actshift.engine.intervene import decoder_of, intervene
from actshift.engine.intervene_plan import (
    Asked,
    InterveneSettings,
    Labels,
    refusal_phrases_of,
    refusal_tokens,
)
from actshift.engine.stores import CONDITIONS
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
from actshift.random_streams import EFFECT_CONTROLS
from actshift.studies.refusal_direction.study import COLUMNS, RefusalDirection
from actshift.vocab import SPLITS

#: Files of the stage's folder.
TABLE, ROWS, ARRAYS = "refusal_direction.csv", "rows.parquet", "direction.safetensors"
#: Random directions beside the chosen one.
DRAWS = 20
#: Encoded prompts by condition and split.
_Sides = Mapping[str, Mapping[str, list[Asked]]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A difference of means at one position and layer, with its scores on `select` prompts.

    Attributes:
        position: Token of the template after the instruction, negative from the end.
        layer: 0-based block whose input it was read from.
        bypass: Mean refusal log-odds of harmful prompts with it ablated everywhere, nats.
        induce: Mean refusal log-odds of harmless prompts with it added at its layer, nats.
        kl: Mean KL from the plain model of harmless prompts with it ablated, nats.
    """

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate, by its place in the list, and the filters it misses (none: passes)."""

    index: int
    missed: tuple[str, ...]


def missed_filters(
    candidate: Candidate, settings: RefusalDirection, *, n_layers: int
) -> tuple[str, ...]:
    """Names of the filters that a candidate misses: `kl`, `induce`, `layer`."""
    tests = {
        "kl": candidate.kl <= settings.max_kl,
        "induce": candidate.induce >= settings.min_induce,
        "layer": candidate.layer < int(settings.layer_share * n_layers),
    }
    return tuple(name for name, met in tests.items() if not met)


def choose(candidates: Sequence[Candidate], settings: RefusalDirection, *, n_layers: int) -> Choice:
    """The survivor with the lowest bypass score; without one, the least violating candidate.

    No filter is ever relaxed: a choice that misses some says which. Least violating is fewest
    filters missed, then the lowest bypass score; ties go to the earlier candidate.

    Raises:
        ValueError: There are no candidates.

    Source: Arditi et al. 2024 (arXiv 2406.11717), appendix C; the fallback is ours.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    missed = [missed_filters(c, settings, n_layers=n_layers) for c in candidates]
    index = min(range(len(candidates)), key=lambda i: (len(missed[i]), candidates[i].bypass, i))
    return Choice(index, missed[index])


def refusal_direction(
    inputs: Mapping[str, Path], *, settings: RefusalDirection, context: JobContext, out: Path
) -> None:
    """Find the direction on `fit`, choose it on `select`, show on `heldout` what it does.

    Args:
        inputs: `checkpoint`, the folder of the tuned model, and the prompt sets `harmful` and
            `harmless`.
        settings: The study's section of the configuration.
        context: The job; its seed draws the prompts and the random controls.
        out: Folder to make: table of candidates, directions, held-out rows.

    Raises:
        UserError: Too few prompts, or none left of a condition once those are dropped that the
            model does not treat as expected.

    Source: Arditi et al. 2024 (arXiv 2406.11717), sections 2.3 and 2.4, appendices B and C.
    """
    pair, seed, checkpoint = context.pair, context.seed, inputs["checkpoint"]
    loaded = load_model(
        checkpoint, name=f"{pair}.tuned", dtype=context.dtype, device=context.device
    )
    depth = len(loaded.blocks)
    tokens = refusal_tokens(loaded.tokenizer, settings.openers)
    scorer = _Scorer(decoder_of(loaded), tokens, settings.token_budget)
    drawn, width = _sides(loaded, {name: inputs[name] for name in CONDITIONS}, settings, seed)
    sides = {name: _as_expected(side, scorer, name=name) for name, side in drawn.items()}
    raw = _differences(scorer.decoder, sides, width)
    candidates = _score(scorer, sides, raw)
    chosen = choose(candidates, settings, n_layers=depth)
    best = candidates[chosen.index]
    direction = raw[best.layer, best.position]
    rows = candidate_rows(
        candidates, chosen, settings, norms=np.linalg.norm(raw, axis=-1), sides=sides
    )
    table = pd.DataFrame(rows, columns=list(COLUMNS["refusal_direction"])).assign(pair=pair)
    with publishing(out) as partial:
        partial.mkdir()
        write_table(table, partial / TABLE)
        save_file({"direction": direction, "candidates": raw}, partial / ARRAYS)
        intervene(
            loaded,
            [prompt for name in CONDITIONS for prompt in sides[name]["heldout"]],
            effect_lanes(direction, best, n_layers=depth, seed=seed),
            labels=Labels(context.run, pair, loaded.name),
            settings=InterveneSettings.of(
                settings.model_dump(), refusal_phrases=refusal_phrases_of(checkpoint), tokens=tokens
            ),
            staging=context.staging,
            out=partial / ROWS,
            identity={"code": context.code, "weights": weights_hash(checkpoint)},
        )
    _print_choice(best, chosen)


def candidate_rows(
    candidates: Sequence[Candidate],
    chosen: Choice,
    settings: RefusalDirection,
    *,
    norms: Float[np.ndarray, "layer position"],
    sides: _Sides,
) -> list[dict[str, object]]:
    """One row a candidate: the columns of table `refusal_direction` but for `pair`."""
    counts = {f"n_{s}_{name}": len(sides[name][s]) for s in SPLITS[:2] for name in CONDITIONS}
    rows: list[dict[str, object]] = []
    for index, candidate in enumerate(candidates):
        missed = missed_filters(candidate, settings, n_layers=len(norms))
        verdict = "none passes" if chosen.missed else "passes"
        rows.append(
            {
                **asdict(candidate),
                "norm": float(norms[candidate.layer, candidate.position]),
                **{f"passes_{name}": name not in missed for name in ("kl", "induce", "layer")},
                "chosen": index == chosen.index,
                "verdict": verdict if index == chosen.index else None,
                **counts,
            }
        )
    return rows


def effect_lanes(
    direction: Float[np.ndarray, " d_model"], best: Candidate, *, n_layers: int, seed: int
) -> list[Lane]:
    """Plain, ablated, added and subtracted; and the same with random directions of equal norm."""
    rng = EFFECT_CONTROLS.rng(seed)
    norm = float(np.linalg.norm(direction))
    draws = rng.standard_normal((DRAWS, len(direction)))
    draws *= norm / np.linalg.norm(draws, axis=1, keepdims=True)
    lanes = [Lane("plain")]
    for kind, draw, vector in [
        ("", None, direction),
        *(("random_", number, row) for number, row in enumerate(draws)),
    ]:
        tail = "" if draw is None else f"_{draw}"
        edit = Ablate(unit_column(vector))
        cut = everywhere(f"{kind}ablate{tail}", edit, n_layers=n_layers)
        lanes.append(Lane(cut.name, cut.edits, draw=draw))
        for name, coeff in (("add", 1.0), ("subtract", -1.0)):
            place = Placed(Steer(vector, coeff), best.layer, site="resid_pre")
            lanes.append(Lane(f"{kind}{name}{tail}", (place,), draw=draw))
    return lanes


def _sides(
    loaded: LoadedModel, files: Mapping[str, Path], settings: RefusalDirection, seed: int
) -> tuple[_Sides, int]:
    """Drawn and encoded prompts of both conditions, and how many tokens the template adds."""
    sides: dict[str, dict[str, list[Asked]]] = {}
    width = None
    lead = answer_lead(loaded.tokenizer)
    for name, file in files.items():
        rng = random.Random(f"refusal direction {name} {seed}")
        rows = [prompt for prompt in read_prompts(file) if prompt.condition == name]
        sides[name] = {}
        for split in SPLITS:
            members = [prompt for prompt in rows if prompt.split == split]
            drawn = rng.sample(members, min(len(members), getattr(settings, f"n_{split}")))
            sides[name][split] = []
            for prompt in drawn:
                encoded = encode_to_answer(loaded.tokenizer, prompt.text, lead=lead)
                after = len(encoded.ids) - encoded.instruction_end
                width = after if width is None else min(width, after)
                sides[name][split].append(Asked(prompt, np.array(encoded.ids)))
            if not drawn:
                raise UserError(
                    f"refusal_direction: {file} has no '{name}' prompts in the split {split}"
                )
    return sides, max(1, width or 1)


@dataclass(frozen=True)
class _Scorer:
    """Scores of a model's first answer tokens, `[lane, prompt]` in nats."""

    decoder: Decoder
    refusal_tokens: tuple[int, ...]
    token_budget: int

    def log_odds(
        self, asked: Sequence[Asked], lanes: Sequence[Lane]
    ) -> Float[np.ndarray, "lane prompt"]:
        """Refusal log-odds."""
        return self._scores(asked, lanes, lambda x, _: refusal_log_odds(x, self.refusal_tokens))

    def kl(self, asked: Sequence[Asked], lanes: Sequence[Lane]) -> Float[np.ndarray, "lane prompt"]:
        """KL from the plain model."""
        plain = np.concatenate([part.logits[0] for part in self._passes(asked, [Lane("plain")])])
        return self._scores(asked, lanes, lambda x, prompts: kl_rows(plain[prompts], x))

    def _scores(
        self, asked: Sequence[Asked], lanes: Sequence[Lane], score: Callable[..., np.ndarray]
    ) -> Float[np.ndarray, "lane prompt"]:
        """Score of (logits of a lane, places of its prompts), pass by pass."""
        out = np.empty((len(lanes), len(asked)))
        for part in self._passes(asked, lanes):
            scores = [score(logits, part.prompts) for logits in part.logits]
            out[part.lanes, part.prompts] = scores
        return out

    def _passes(self, asked: Sequence[Asked], lanes: Sequence[Lane]) -> Iterator[FirstLogits]:
        return first_logits(self.decoder, _ids(asked), lanes, token_budget=self.token_budget)


def _ids(asked: Sequence[Asked]) -> list[np.ndarray]:
    return [prompt.ids for prompt in asked]


def _as_expected(
    by_split: Mapping[str, list[Asked]], scorer: _Scorer, *, name: str
) -> dict[str, list[Asked]]:
    """Keep harmful prompts that are refused and harmless ones that are not; held-out ones stay."""
    sign = 1.0 if name == "harmful" else -1.0
    kept = dict(by_split)
    for split in ("fit", "select"):
        odds = scorer.log_odds(by_split[split], [Lane("plain")])[0]
        scored = zip(by_split[split], odds, strict=True)
        kept[split] = [prompt for prompt, score in scored if sign * score > 0]
        if not kept[split]:
            raise UserError(
                f"refusal_direction: the model has no {name} prompt of the split {split} that it "
                f"{'refuses' if sign > 0 else 'answers'} (first token, refusal_direction.openers); "
                "there is no refusal direction to find"
            )
    return kept


def _differences(
    decoder: Decoder, sides: _Sides, width: int
) -> Float[np.ndarray, "layer position d_model"]:
    """Harmful minus harmless mean of every block's input, at every position after the prompt."""
    harmful, harmless = (
        last_inputs(decoder, _ids(sides[name]["fit"]), width=width) for name in CONDITIONS
    )
    layers, positions = harmful.shape[:2]
    return np.array(
        [
            [diff_in_means(harmful[i, p], harmless[i, p]) for p in range(positions)]
            for i in range(layers)
        ]
    )


def _score(
    scorer: _Scorer,
    sides: _Sides,
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
    harmful, harmless = (sides[name]["select"] for name in CONDITIONS)
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
