"""`actshift pin`: write the commits that hub revisions stand for into a configuration."""

import io
import re
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from actshift.config.schema import Config, Pair, parse_config
from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text
from actshift.models.hub import resolve
from actshift.models.sources import (
    HubSource,
    LoraSource,
    Source,
    parse_adapter,
    parse_reference,
    parse_tuned,
)
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import ROLES

_Parse = Callable[..., Source]

#: Indentation of the first nested mapping and of the first list under a top-level key.
_MAPPING = re.compile(r"^\w+:[^\n]*\n( +)\w+:", re.MULTILINE)
_DASH = re.compile(r"^\w+:[^\n]*\n( *)- ", re.MULTILINE)


def pin_config(path: Path) -> None:
    """Resolve every hub revision of a config and write the commits back, comments kept.

    Nothing is written unless all of them resolve.

    Raises:
        UserError: not a valid config, or a revision that does not resolve.
    """
    raw, yaml = _load(path)
    config = parse_config(raw, origin=str(path))
    changes = [*_pin_pairs(raw, config), *_pin_datasets(raw, config)]
    if changes:
        text = io.StringIO()
        yaml.dump(raw, text)
        parse_config(YAML(typ="safe").load(text.getvalue()), origin=str(path))
        atomic_write_text(path, text.getvalue())
    for line in changes or [f"{path}: nothing to pin, every hub revision is a commit already"]:
        typer.echo(line)


def _load(path: Path) -> tuple[Any, YAML]:
    """The file for a round trip, and a dumper with its indentation."""
    text = path.read_text(encoding="utf-8")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    mapping, dash = _MAPPING.search(text), _DASH.search(text)
    offset = len(dash[1]) if dash else 2
    yaml.indent(mapping=len(mapping[1]) if mapping else 2, sequence=offset + 2, offset=offset)
    try:
        raw = yaml.load(text)
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping such as config.yaml")
    return raw, yaml


def _pin_pairs(raw: Any, config: Config) -> Iterator[str]:
    for entry, pair in zip(raw["pairs"], config.pairs, strict=True):
        commits: dict[str, str] = {}
        for role in ROLES:
            named = parse_tuned(getattr(pair, role), revision=getattr(pair.revision, role))
            pinned = _moved(named)
            if pinned is None:
                continue
            yield f"pairs.{pair.name}.{role}: {named} -> {pinned.revision}"
            if "@" in entry[role]:
                entry[role] = _written(named, pinned)
            else:
                commits[role] = str(pinned.revision)
        _set_revisions(entry, commits)
        yield from _pin_named(entry, pair, "references", parse_reference)
        yield from _pin_named(entry, pair, "adapters", parse_adapter)


def _pin_named(entry: Any, pair: Pair, key: str, parse: _Parse) -> Iterator[str]:
    """The sources that a pair has by name under a key."""
    for name, model in getattr(pair, key).items():
        named = parse(model.source, revision=model.revision)
        pinned = _moved(named)
        if pinned is None:
            continue
        yield f"pairs.{pair.name}.{key}.{name}: {named} -> {pinned.revision}"
        written = entry[key][name]
        if isinstance(written, str):
            entry[key][name] = _written(named, pinned)
        elif "@" in written["source"]:
            written["source"] = _written(named, pinned)
        else:
            _put(written, "revision", pinned.revision)


def _moved(named: Source) -> HubSource | None:
    """A hub source at the commit it stands for now; None for others and where it is one already."""
    source = named.adapter if isinstance(named, LoraSource) else named
    if not isinstance(source, HubSource):
        return None
    pinned = HubSource(source.repo_id, resolve(source.repo_id, source.revision))
    return None if pinned == source else pinned


def _written(named: Source, pinned: HubSource) -> str:
    return str(LoraSource(pinned) if isinstance(named, LoraSource) else pinned)


def _set_revisions(entry: Any, commits: dict[str, str]) -> None:
    """Put commits under a pair's `revision`, which may be absent or one string for both."""
    if not commits:
        return
    revision = entry.get("revision")
    if not isinstance(revision, dict):
        both = {} if revision is None else dict.fromkeys(ROLES, revision)
        revision = CommentedMap(both)
        revision.fa.set_flow_style()
        _put(entry, "revision", revision)
    for role, commit in commits.items():
        _put(revision, role, commit)


def _put(mapping: Any, key: str, value: Any) -> None:
    """Set a key; a new one goes before the last, which may carry the comment that follows."""
    if key in mapping or not mapping:
        mapping[key] = value
    else:
        mapping.insert(len(mapping) - 1, key, value)


def _pin_datasets(raw: Any, config: Config) -> Iterator[str]:
    named = [
        *(
            (("prompts", name), source)
            for name, source in config.prompts.items()
            if source.source == "hub"
        ),
        *(
            (("misalignment", "data", kind), source)
            for kind, source in config.of(Misalignment).data.items()
        ),
    ]
    for keys, source in named:
        if source.repo is None:
            continue
        commit = resolve(source.repo, source.revision, repo_type="dataset")
        if commit != source.revision:
            yield f"{'.'.join(keys)}: {source.repo}@{source.revision or 'main'} -> {commit}"
            _put(reduce(getitem, keys, raw), "revision", commit)
