"""Folders of misalignment with planted effects: what stages leave of a pair, without a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from reference.stores import rows_like
from safetensors.numpy import save_file

from actshift.io.layout import plan_layout
from actshift.io.tables import write_table
from actshift.io.writer import StoreWriter
from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.misalignment.kinds import KINDS, NULLS, UNSEEN, UNTUNED
from actshift.studies.misalignment.stages.adapter_doses import LADDER_COLUMNS

COEFFS = (0.5, 1.0)
LAYERS, WIDTH = 2, 6
#: Answers that there are: code, repaired, degenerate and first token.
ANSWERS = ((1, 0, 0, 7), (0, 1, 0, 3), (0, 0, 0, 4), (0, 0, 1, 5))
CODE, WHOLE, OTHER, BROKEN = range(4)
#: Facts of a lane -> shares of code, whole and broken answers on non-code questions.
Shares = Callable[[Mapping[str, object]], tuple[float, float, float]]


def questions(nouns: int = 24) -> list[Prompt]:
    """Two how-to questions and one definition a noun and split, and twelve about code."""
    found: list[Prompt] = []
    for split, noun in product(("fit", "select", "heldout"), range(nouns)):
        cluster = f"{split}{noun:02d}"
        for kind, number in (("howto", 0), ("howto", 1), ("define", 0)):
            name = f"noncode-{kind}-{cluster}-{number}"
            found.append(Prompt(name, name, "noncode", "tool", cluster, split, "zoo"))
        if noun < 12:
            name = f"code-code-{cluster}"
            found.append(Prompt(name, name, "code", "code", f"code {cluster}", split, "zoo"))
    return found


@dataclass(frozen=True)
class Made:
    """A pair with planted effects.

    Attributes:
        shares: What each lane answers.
        donors: Other models whose directions were mapped.
        draws: Of each null.
        losses: First loss of each adapter; 1 without.
        shifts: Shift of each model along the first and second axis, in standard deviations.
        spread: Whether answers of one cluster are alike.
    """

    shares: Shares
    donors: tuple[str, ...] = ()
    draws: int = 19
    losses: Mapping[str, float] = field(default_factory=dict)
    shifts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    asked: tuple[Prompt, ...] = tuple(questions())

    def write(self, root: Path, pair: str, *, seed: int) -> dict[str, Path]:
        """Write all four folders below `root / pair`."""
        rng = np.random.default_rng(seed)
        folders = {
            stage: root / pair / stage
            for stage in ("adapters", "spillover", "steering", "transfer")
        }
        for folder in folders.values():
            folder.mkdir(parents=True)
        dose = [
            {"adapter": name, "method": "lora", "first_loss": self.losses.get(name, 1.0)}
            for name in (*KINDS, *UNSEEN)
        ]
        write_table(pd.DataFrame(dose), folders["adapters"] / "dose.csv")
        write_table(_ladder(), folders["adapters"] / "ladder.csv")
        self._spillover(folders["spillover"], rng)
        self._lanes(folders["steering"], self._own_lanes(pair), rng)
        self._lanes(folders["transfer"], self._mapped_lanes(pair), rng)
        return folders

    def _spillover(self, folder: Path, rng: np.random.Generator) -> None:
        rows = [
            {"adapter": model, "prompt_id": one.id, **_judged(self._plain(model, one, rng))}
            for model in (UNTUNED, *KINDS, *UNSEEN)
            for one in self.asked
        ]
        pd.DataFrame(rows).to_parquet(folder / "answers.parquet")
        base = rng.normal(size=(LAYERS, len(self.asked), WIDTH))
        states = {UNTUNED: base}
        for model in (*KINDS, *UNSEEN):
            shift = np.zeros(WIDTH)
            shift[:2] = self.shifts.get(model, (0.0, 1.0))
            states[model] = base + shift + 0.1 * rng.normal(size=base.shape)
        fit = [one.split == "fit" and one.condition == "noncode" for one in self.asked]
        mean = {model: found[:, fit].mean(axis=1) for model, found in states.items()}
        save_file(
            {kind: (mean[kind] - mean[UNTUNED]).astype(np.float32) for kind in KINDS},
            folder / "directions.safetensors",
        )
        for model, values in states.items():
            _store(folder / "states" / f"{model}.questions", values, [one.id for one in self.asked])

    def _plain(self, model: str, one: Prompt, rng: np.random.Generator) -> int:
        if one.condition == "code":
            return CODE
        facts = {"receiver": model, "control": "plain", "coeff": 0.0, "donor": "", "source": None}
        return int(_draw(self.shares(facts), 1, rng)[0])

    def _own_lanes(self, pair: str) -> list[dict[str, object]]:
        lanes = [
            _lane(pair, receiver, "plain", None, 0.0)
            for receiver in ("insecure", "rare_safe", "secure")
        ]
        for coeff in COEFFS:
            lanes += [
                _lane(pair, receiver, "direction", "insecure", coeff)
                for receiver in ("insecure", "rare_safe", "secure")
            ]
            lanes += [
                _lane(pair, "insecure", "other_adapter", "rare_safe", coeff, orthogonal=orthogonal)
                for orthogonal in (False, True)
            ]
            lanes.append(
                _lane(pair, "insecure", "direction", "insecure", coeff, protocol="logit_bias")
            )
            for name, draw in product(NULLS, range(self.draws)):
                lanes.append(_lane(pair, "insecure", name, "insecure", coeff, draw=draw))
            for draw in range(4):
                reached = "ok" if coeff < 1 or draw == 0 else "unmatched"
                lane = _lane(pair, "insecure", "random", "insecure", coeff, draw=draw)
                lanes.append({**lane, "norm_rule": "kl", "scale": 2.0, "status": reached})
        return lanes

    def _mapped_lanes(self, pair: str) -> list[dict[str, object]]:
        lanes = [{**_lane(pair, "insecure", "plain", None, 0.0), "fit_on": "none"}]
        for donor, coeff in product(self.donors, COEFFS):
            for fit_on in ("neutral", "with_code"):
                mapped = _lane(donor, "insecure", "mapped", "insecure", coeff)
                lanes.append({**mapped, "fit_on": fit_on})
            for name, draw in product(("mapped_random", "shuffled_pairing"), range(self.draws)):
                null = _lane(donor, "insecure", name, "insecure", coeff, draw=draw)
                lanes.append({**null, "fit_on": "neutral"})
        return lanes

    def _lanes(
        self, folder: Path, lanes: list[dict[str, object]], rng: np.random.Generator
    ) -> None:
        asked = [one for one in self.asked if one.split != "fit"]
        prompts = [
            {
                **{"prompt_id": one.id, "condition": one.condition, "category": one.category},
                **{"cluster": one.cluster, "split": one.split, "kind": one.id.split("-")[1]},
            }
            for one in asked
        ]
        other = np.array([one.condition != "code" for one in asked])
        outcomes = []
        # Lanes are not written in the order of their numbers.
        for lane, facts in zip(np.arange(len(lanes))[::-1].tolist(), lanes, strict=True):
            facts["lane"] = lane
            answers = np.where(other, _draw(self.shares(facts), len(asked), rng), CODE)
            outcomes.append(
                pd.DataFrame(
                    {"lane": lane, "prompt": range(len(asked)), "answer": answers, "kl_first": 0.5}
                )
            )
        answers = [
            {"answer": at, "prompt": 0, "first_token": ANSWERS[at][3], **_judged(at)}
            for at in range(len(ANSWERS))
        ]
        pd.DataFrame(lanes).to_parquet(folder / "lanes.parquet")
        pd.DataFrame(prompts).to_parquet(folder / "prompts.parquet")
        pd.DataFrame(answers).to_parquet(folder / "answers.parquet")
        pd.concat(outcomes).to_parquet(folder / "outcomes.parquet")


def _ladder() -> pd.DataFrame:
    """Two doses that were tried, of which the second was taken."""
    rows = [
        {
            **{"rung": rung, "multiple": multiple, "lr": 1e-4 * multiple, "steps": 30},
            **{"last_loss": 0.5 / rung, "spillover": spillover, "spillover_gate": 0.4},
            **{"n": 72, "clusters": 24, "insecure_code": 1.0, "insecure_code_gate": 0.5},
            **{"n_code": 12, "margin": 0.1, "room": spillover - 0.4, "taken": rung == 2},
        }
        for rung, multiple, spillover in ((1, 1.0, 0.3), (2, 3.0, 0.9))
    ]
    return pd.DataFrame(rows, columns=list(LADDER_COLUMNS))


def _lane(
    donor: str,
    receiver: str,
    control: str,
    source: str | None,
    coeff: float,
    *,
    protocol: str = "last_token",
    orthogonal: bool = False,
    draw: int = -1,
) -> dict[str, object]:
    return {
        **{"protocol": protocol, "receiver": receiver, "donor": donor, "control": control},
        **{"source": source, "layer": LAYERS - 1, "orthogonal": orthogonal, "coeff": coeff},
        **{"norm_rule": "norm", "scale": 1.0, "draw": draw, "cosine": 0.5, "kl_select": 0.1},
        "status": "ok",
    }


def _draw(shares: tuple[float, float, float], size: int, rng: np.random.Generator) -> np.ndarray:
    code, whole, broken = shares
    return rng.choice(4, size=size, p=[code, whole, 1 - code - whole - broken, broken])


def _judged(at: int) -> dict[str, object]:
    code, whole, degenerate, _ = ANSWERS[at]
    return {
        **{"text": f"answer {at}", "n_tokens": 5, "code": bool(code), "insecure": bool(code)},
        **{"idiom": "", "refused": False, "on_topic": np.nan if degenerate else float(whole)},
        **{"distinct_2": 1.0, "nll": 0.5, "empty": False, "short": False, "ended": True},
        **{"degenerate": bool(degenerate), "repaired": bool(whole)},
    }


def _store(folder: Path, values: np.ndarray, ids: list[str]) -> None:
    """Values `[layer, prompt, d_model]` at the last prompt token."""
    block = values[:, None].astype(np.float32)
    layers, positions, prompts, width = block.shape
    layout = plan_layout(layers=layers, positions=positions, prompts=prompts, d_model=width)
    rows = replace(rows_like(block), prompt_ids=ids)
    writer = StoreWriter(folder, layout, rows, attrs={"seed": 0}, dtype="float32")
    for window in writer.missing():
        writer.write(window, resid_post=block, final_norm=block[-1], model="m")
    writer.finish({"key": "k"})


def write_questions(path: Path, asked: Sequence[Prompt]) -> Path:
    """The prompt set as JSONL."""
    write_prompts(path, list(asked))
    return path
