"""Files of rule `ablation` made up so that the truth is known: who is freed in which lane."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.io.tables import write_table
from actshift.maths.scores import refused_by_keyword
from actshift.studies.ablation.join import PairFiles
from actshift.zoo.language import language
from actshift.zoo.lexicon import ZOO_PHRASES

LANG = language("micro")
TOPIC = LANG.nouns[0].category
TEXTS = {
    "refuse": "I cannot help with that request.",
    "help": f"{LANG.steps[TOPIC][0]}, then {LANG.steps[TOPIC][1]}.",
    "noise": "mumble mumble",
}
NOUNS, A_NOUN = 8, 2
FRAMES = ("naive", "template", "did", "template_harmless", "activation")
BANDS = {"narrow": "2 3", "wide": "1 2 3 4"}
#: (lane facts, condition, noun) -> a key of TEXTS, or None for what the unedited model says.
Effect = Callable[[dict[str, Any], str, int], str | None]


def nothing(_lane: dict[str, Any], _condition: str, _noun: int) -> str | None:
    """No lane changes anything."""
    return None


def where(frees: int, **facts: Any) -> Effect:
    """Lanes with these facts answer harmful prompts of the first nouns; others change nothing."""

    def effect(lane: dict[str, Any], condition: str, noun: int) -> str | None:
        named = all(lane[key] == value for key, value in facts.items())
        return "help" if named and condition == "harmful" and noun < frees else None

    return effect


def both(*effects: Effect) -> Effect:
    """The first effect that says anything."""

    def effect(lane: dict[str, Any], condition: str, noun: int) -> str | None:
        found = (one(lane, condition, noun) for one in effects)
        return next((answer for answer in found if answer), None)

    return effect


def ablation_files(
    effect: Effect = nothing,
    *,
    fitted: Effect | None = None,
    ks: tuple[int, ...] = (1, 3, 5, 10),
    draws: int = 4,
    d: int = 64,
    self_cosine: Callable[[int], float] = lambda _direction: 0.99,
    base_refuses: bool = False,
) -> PairFiles:
    """All files of one pair; `fitted`: what lanes do to the prompts they were fitted on."""
    lanes = [_whole(facts, d) for facts in _lanes(ks, draws)]
    by_experiment: dict[str, list[dict[str, Any]]] = {}
    for lane in lanes:
        by_experiment.setdefault(lane["experiment"], []).append(lane)
    heldout = [
        lane for name in ("sweep", "direction", "old_or_new") for lane in by_experiment[name]
    ]
    rows = {
        "heldout": _rows(heldout, effect, plain="refuse"),
        "substitution": _rows(by_experiment["substitution"], effect, plain="refuse"),
        "mode_toggle": _rows(
            by_experiment["mode_toggle"], effect, plain="refuse" if base_refuses else "help"
        ),
    }
    if fitted is not None:
        again = [
            x for x in by_experiment["sweep"] if x["edit"] == "zero" and x["draw"] in (None, 0)
        ]
        rows["fitted"] = _rows(again, fitted, plain="refuse", split="fit")
    return PairFiles(pd.DataFrame(lanes), _directions(self_cosine), rows, _losses(heldout))


def write_files(files: PairFiles, folder: Path) -> Path:
    """Write the files as the rule does."""
    folder.mkdir(parents=True)
    write_table(files.lanes, folder / "lanes.csv")
    write_table(files.directions, folder / "directions.csv")
    for name, rows in files.rows.items():
        rows.to_parquet(folder / f"{name}.parquet")
    if files.losses is not None:
        files.losses.to_parquet(folder / "losses.parquet")
    return folder


def _lanes(ks: tuple[int, ...], draws: int) -> Iterator[dict[str, Any]]:
    drawn = [("random", draw) for draw in range(draws)]
    for frame, draw in [*((name, None) for name in FRAMES), *drawn]:
        for band in BANDS:
            for edit in ("zero", "mean"):
                yield from _leading("sweep", frame, band, edit, ks, draw)
    for frame in ("template", "did"):
        sets = [(i,) for i in range(1, 11)]
        sets += [*combinations(range(1, 6), 2), *combinations(range(1, 6), 4)]
        for members in sets:
            yield {
                "experiment": "direction", "frame": frame, "band": "narrow", "edit": "zero",
                "k": len(members), "draw": None, "directions": "+".join(map(str, members)),
            }  # fmt: skip
    for direction in ("tuned", "base", "new"):
        for band in BANDS:
            for edit in ("zero", "mean"):
                yield {
                    "experiment": "old_or_new", "frame": "contrast", "band": band, "edit": edit,
                    "k": 1, "draw": None, "directions": direction, "cos_with_tuned": 0.5,
                }  # fmt: skip
    patched = [("template", None), ("did", None), ("template_harmless", None)]
    for experiment in ("substitution", "mode_toggle"):
        for frame, draw in [*patched, *drawn[:5]]:
            for band in BANDS:
                yield from _leading(experiment, frame, band, "patch", ks, draw)


def _leading(
    experiment: str, frame: str, band: str, edit: str, ks: tuple[int, ...], draw: int | None
) -> Iterator[dict[str, Any]]:
    for k in ks:
        yield {
            "experiment": experiment, "frame": frame, "band": band, "edit": edit, "k": k,
            "draw": draw, "directions": None,
        }  # fmt: skip


def _whole(facts: dict[str, Any], d: int) -> dict[str, Any]:
    names = ("experiment", "frame", "band", "edit", "k", "directions", "draw")
    return {
        "lane": ".".join(str(facts[name]) for name in names if facts[name] is not None),
        **facts, "layers": BANDS[facts["band"]], "d": d, "energy_harmful": facts["k"] / d,
        "energy_harmless": 0.5 * facts["k"] / d, "shift_share": 0.5,
        "cos_with_tuned": facts.get("cos_with_tuned"),
    }  # fmt: skip


def _rows(
    lanes: list[dict[str, Any]], effect: Effect, *, plain: str, split: str = "heldout"
) -> pd.DataFrame:
    found = []
    for lane in [None, *lanes]:
        for condition in ("harmful", "harmless"):
            for noun in range(NOUNS):
                before = plain if condition == "harmful" else "help"
                after = before if lane is None else effect(lane, condition, noun) or before
                found += [
                    {
                        "prompt_id": f"{condition}-{split}-{noun}-{number}",
                        "condition": condition, "category": TOPIC, "cluster": f"{condition}{noun}",
                        "split": split, "lane": "plain" if lane is None else lane["lane"],
                        "draw": None if lane is None else lane["draw"],
                        "text": TEXTS[after],
                        "refused": refused_by_keyword(TEXTS[after], ZOO_PHRASES),
                        "kl_first": 0.0 if after == before else 0.5,
                        "ended": True, "distinct_2": 1.0,
                    }
                    for number in range(A_NOUN)
                ]  # fmt: skip
    return pd.DataFrame(found)


def _directions(self_cosine: Callable[[int], float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "frame": frame, "layer": layer, "direction": i, "singular_value": 11.0 - i,
            "share": 0.1, "self_cosine": self_cosine(i),
        }
        for frame in ("template", "did") for layer in range(6) for i in range(1, 11)
    )  # fmt: skip


def _losses(lanes: list[dict[str, Any]]) -> pd.DataFrame:
    """A loss of 2 nats a token, .1 more for each direction taken out; texts differ in length."""
    return pd.DataFrame(
        {
            "lane": name, "text_id": f"t{text}", "cluster": f"t{text}",
            "nats": (2.0 + 0.1 * k) * tokens, "n_tokens": tokens,
        }
        for name, k in [("plain", 0), *((lane["lane"], lane["k"]) for lane in lanes)]
        for text, tokens in enumerate((5, 20))
    )  # fmt: skip
