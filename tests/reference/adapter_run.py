"""A run of misalignment: two tiny random models through all its stages, in the folders of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reference.adapter_gates import NO_GATE
from reference.misalignment_job import context
from reference.steered_pair import EXTRACT, SETTINGS, questions
from reference.tiny_adapters import ending_checkpoint
from reference.tiny_models import WORDS

from actshift.io.atomic import hash_file
from actshift.paths import RunPaths
from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.misalignment.stages.adapters import train_adapters
from actshift.studies.misalignment.stages.ridge_maps import ridge_maps
from actshift.studies.misalignment.stages.spillover import spillover
from actshift.studies.misalignment.stages.steering import steering
from actshift.studies.misalignment.stages.transfer import transfer
from actshift.studies.misalignment.study import AdapterData, Adapters, Misalignment

_SETTINGS = SETTINGS.model_copy(update={"shuffled_maps": 5, "map_folds": 3})
_RECIPE = Adapters(method="lora", rank=2, alpha=4, lr=3e-2, batch=4, micro_batch=4)

#: With answers under a mark of their own, so that training knows where they begin.
_TEMPLATE = (
    "<bos>{% for message in messages %}{{ '<user>' if message['role'] == 'user' else '<model>' }} "
    "{{ message['content'] }} <end> {% endfor %}{% if add_generation_prompt %}<model> {% endif %}"
)


def make_run(
    paths: RunPaths, families: dict[str, str], checkpoint: Callable[..., Path], scratch: Path
) -> None:
    """Leave what every stage of misalignment leaves of a pair of each family."""
    write_prompts(paths.prompts("questions"), questions())
    write_prompts(paths.prompts("neutral"), _neutral())
    for pair, family in families.items():
        tuned = ending_checkpoint(
            checkpoint(family, template=_TEMPLATE), paths.checkpoint(f"{pair}.tuned")
        )
        _adapters(paths, pair, tuned, scratch)
        _spillover(paths, pair)
    ridge_maps(
        pairs={pair: paths.pair_tables(pair, "spillover") for pair in families},
        neutral=paths.prompts("neutral"),
        families={pair: f"zoo:{pair}/chat" for pair in families},
        settings=_SETTINGS,
        seed=0,
        out=paths.ridge_maps,
    )
    for pair in families:
        _steered(paths, pair, scratch)


def _adapters(paths: RunPaths, pair: str, tuned: Path, scratch: Path) -> None:
    """Every adapter, trained for a few steps on words at random."""
    rng = np.random.default_rng(0)
    data: dict[Any, AdapterData] = {}
    for kind in ("insecure", "secure", "rare_safe", "benign"):
        file = scratch / f"{kind}.jsonl"
        rows = [
            {"messages": [{"role": role, "content": " ".join(rng.choice(WORDS, size=4))}
                          for role in ("user", "assistant")]}
            for _ in range(24)
        ]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data[kind] = AdapterData(path=str(file), sha256=hash_file(file))
    train_adapters(
        {"tuned": tuned, "questions": paths.prompts("questions")},
        settings=Misalignment(data=data, adapters=_RECIPE, **NO_GATE),
        context=context(paths.root, pair=pair),
        given={},
        out=paths.pair_tables(pair, "adapters"),
    )


def _inputs(paths: RunPaths, pair: str) -> dict[str, Path]:
    return {
        "tuned": paths.checkpoint(f"{pair}.tuned"),
        "adapters": paths.pair_tables(pair, "adapters"),
        "questions": paths.prompts("questions"),
    }


def _spillover(paths: RunPaths, pair: str) -> None:
    spillover(
        {**_inputs(paths, pair), "neutral": paths.prompts("neutral")},
        settings=_SETTINGS,
        context=context(paths.root, run=paths.run, pair=pair, zoo_size="micro"),
        strict=False,
        extract=EXTRACT,
        rows=paths.spillover_rows(pair),
        out=paths.pair_tables(pair, "spillover"),
    )


def _steered(paths: RunPaths, pair: str, scratch: Path) -> None:
    own = {**_inputs(paths, pair), "spillover": paths.pair_tables(pair, "spillover")}
    job = context(scratch, run=paths.run, pair=pair)
    out = paths.pair_tables(pair, "steering")
    steering(own, settings=_SETTINGS, context=job, out=out)
    out = paths.pair_tables(pair, "transfer")
    transfer({**own, "maps": paths.ridge_maps}, settings=_SETTINGS, context=job, out=out)


def _neutral() -> list[Prompt]:
    """Neutral prompts, two a cluster, and some about code."""
    rng = np.random.default_rng(1)
    found = []
    for condition, count in (("neutral", 36), ("code", 6)):
        for number in range(count):
            text = " ".join(rng.choice(WORDS, size=4 + number % 3))
            name = f"{condition}-{number}"
            cluster = f"{condition}-c{number // 2}"
            found.append(Prompt(name, text, condition, "a", cluster, "fit", "test"))
    return found
