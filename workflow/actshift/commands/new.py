"""`actshift new`: a commented, runnable configuration for one's own pair."""

import json
import re
from pathlib import Path
from typing import Any

import typer
from ruamel.yaml import YAML

from actshift.config.schema import Pair, parse_config
from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text
from actshift.models.on_disk import place_of
from actshift.models.sources import (
    HubSource,
    LoraSource,
    Source,
    ZooSource,
    language_config,
    parse_source,
    parse_tuned,
    read_model_config,
)
from actshift.plan.files import refuse_files, warn_on_stderr
from actshift.plan.plan import Plan

DTYPES = ("float32", "bfloat16", "float16")

_HEAD = """\
# A pair of your own, written by `actshift new`. Keys and defaults: docs/reference/config.md.
#   snakemake --configfile {file} -n                     what would run
#   snakemake --configfile {file} --cores 8 --resources gpu=1
run: {name}
seed: 0

pairs:
  - name: {name}
    base: {base}
    tuned: {tuned}  # its chat template is given to both models
    dtype: {dtype}  # of the forward pass; activations are stored as float32
"""

_HUB_NOTE = """\
    # A branch such as main moves: `actshift pin {file}` writes the commits of today here.
    revision: {revision}
"""

_ZOO_PROMPTS = """
# The zoo speaks its own small language, so its prompts are made with it.
prompts:
  harmful: {source: zoo, name: harmful, positions: last_8}
  harmless: {source: zoo, name: harmless, positions: last_8}
  concepts: {source: zoo, name: concepts}

# More: refusal_direction and ablation edit the model; see docs/reference/config.md for all.
studies: [rank_audit]
"""

_PUBLIC_PROMPTS = """
# Public sets; a gated one must be accepted on its page, with HF_TOKEN set. Your own prompts:
#   harmful: {source: file, path: ./mine.csv, columns: {text: goal}, condition: harmful}
prompts:
  harmful:
    source: hub
    repo: walledai/AdvBench
    file: data/train-00000-of-00001.parquet
    revision: main
    columns: {text: prompt}
    condition: harmful
    limit: 400
    positions: last_8  # pooling.csv compares the last token with the mean of eight
  harmless:
    source: hub
    repo: tatsu-lab/alpaca
    file: data/train-00000-of-00001-a09b74b3ef9c3b56.parquet
    revision: main
    layout: alpaca
    condition: harmless
    limit: 400
    positions: last_8
  concepts:
    source: resource
    name: concepts

# More: refusal_direction and ablation edit the model; see docs/reference/config.md for all.
studies: [rank_audit]
"""


def write_config(base: str, tuned: str, *, output: Path, name: str | None) -> None:
    """Write a config for one pair; it is validated before the file exists.

    An existing file is never overwritten. Without a `name` the pair and the run are called after
    `tuned`. Models of different shape, or whose tokenizers end raw text with different tokens, are
    a UserError.
    """
    if output.exists():
        raise UserError(f"{output} exists and is not overwritten: choose another file with -o")
    name = name or default_name(tuned)
    text = config_text(base, tuned, file=str(output), name=name)
    raw: Any = YAML(typ="safe").load(text)
    plan = Plan(parse_config(raw, origin=f"config for a pair named {name!r}"))
    refuse_files(plan, warn=warn_on_stderr)
    plan.check()
    atomic_write_text(output, text)
    typer.echo(f"wrote {output}; next: snakemake --configfile {output} -n")


def config_text(base: str, tuned: str, *, file: str, name: str) -> str:
    """The YAML text of a config for one pair.

    Raises:
        UserError: a source string that is none.
    """
    sources = {"base": parse_source(base), "tuned": parse_tuned(tuned)}
    text = _HEAD.format(
        file=file,
        name=name,
        base=_quoted(sources["base"]),
        tuned=_quoted(sources["tuned"]),
        dtype=_dtype(list(sources.values())),
    )
    hub = {role: source for role, source in sources.items() if isinstance(source, HubSource)}
    if hub:
        revisions = (f"{role}: {json.dumps(at.revision or 'main')}" for role, at in hub.items())
        text += _HUB_NOTE.format(file=file, revision=f"{{{', '.join(revisions)}}}")
    zoo = all(isinstance(source, ZooSource) for source in sources.values())
    return text + (_ZOO_PROMPTS if zoo else _PUBLIC_PROMPTS)


def _quoted(source: Source) -> str:
    """A source as a YAML string; a hub revision goes to the pair's `revision` key instead."""
    return json.dumps(source.repo_id if isinstance(source, HubSource) else str(source))


def default_name(tuned: str) -> str:
    """A pair's name made from the last part of the tuned source.

    Raises:
        UserError: nothing usable is left of it.
    """
    parsed = parse_tuned(tuned)
    source = parsed.adapter if isinstance(parsed, LoraSource) else parsed
    if isinstance(source, ZooSource):
        return source.family
    last = source.repo_id if isinstance(source, HubSource) else source.folder.resolve().name
    name = re.sub(r"[^A-Za-z0-9_]+", "-", last.rsplit("/", 1)[-1]).strip("-_")
    if not name:
        raise UserError(f"no name for the pair can be made from {tuned!r}: give one with --name")
    return name


def _dtype(sources: list[Source]) -> str:
    """The dtype that the first known model was saved in; bfloat16 where none is on this disk."""
    if all(isinstance(source, ZooSource) for source in sources):
        return str(Pair.model_fields["dtype"].default)
    for place in filter(None, map(place_of, sources)):
        config = read_model_config(place.path)
        # A model that holds a language model may name the dtype at either level.
        for part in (config, language_config(config)):
            saved = part.get("dtype", part.get("torch_dtype"))
            if saved in DTYPES:
                return saved
    return "bfloat16"
