"""Make the JSONL of one prompt set from the place its spec names: zoo, file, hub or resource."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text
from actshift.models.hub import fetch_data
from actshift.prompts.build import Item, draw, items_of
from actshift.prompts.preferences import check_preferences, hh_preferences, to_jsonl
from actshift.prompts.readers import Row, check_sha256, read_rows
from actshift.prompts.records import Prompt, content_hash, write_prompts
from actshift.prompts.splits import DEFAULT_FRACTIONS

#: Prompt sets that ship with the workflow.
RESOURCES = Path(__file__).resolve().parents[3] / "resources" / "prompts"


def make_prompts(spec: Mapping[str, Any], out: Path, *, resources: Path = RESOURCES) -> list[str]:
    """Write one prompt set, and say in words what was made.

    The spec has `set` (its name), `seed`, `source` and what that source needs: zoo (`name`,
    `size`), resource (`name`), file (`path`, optional `sha256`), hub (`repo`, `file`, optional
    `revision`, `sha256`). For all but zoo also, all optional: `layout`, `columns`, `condition`
    (else the name of the set), `category`, `where` (column -> value or list of values),
    `min_chars`, `max_chars`, `limit`, `splits` (shares of fit and select, the rest is held out).
    With `kind` preferences, pairs of answers: of the zoo, or of rows of the layout hh_rlhf. A
    UserError names the key under `prompts.<set>`.
    """
    if spec.get("kind") == "preferences":
        return _preferences(spec, out, resources)
    lines: list[str] = []
    if spec["source"] == "zoo":
        # The language of the zoo is not needed by runs on real models.
        from actshift.zoo.prompts import zoo_prompts

        prompts = zoo_prompts(spec["name"], size=spec["size"], seed=spec.get("seed", 0))
    else:
        prompts, lines = _loaded(spec, resources)
    write_prompts(out, prompts)
    lines.append(f"{spec['set']}: {len(prompts)} prompts, sha256 {content_hash(prompts)}")
    return lines


def _preferences(spec: Mapping[str, Any], out: Path, resources: Path) -> list[str]:
    key, lines = f"prompts.{spec['set']}", []
    if spec["source"] == "zoo":
        from actshift.zoo.prompts import zoo_preferences

        pairs = zoo_preferences(size=spec["size"], pairs=spec["limit"], seed=spec.get("seed", 0))
    else:
        rows, name = _rows(spec, resources, key)
        passed = _where(rows, spec.get("where") or {}, key)
        kept = hh_preferences(
            [row for row, fits in zip(rows, passed, strict=True) if fits],
            condition=spec.get("condition") or spec["set"],
            source=name,
            key=key,
            limit=spec.get("limit"),
            seed=spec.get("seed", 0),
            fractions=_fractions(spec),
        )
        pairs, lines = kept.pairs, [f"{name}: {len(rows)} rows", *kept.lines()]
    check_preferences(pairs, where=key)
    atomic_write_text(out, to_jsonl(pairs))
    return [*lines, f"{spec['set']}: {len(pairs)} preference pairs"]


def _loaded(spec: Mapping[str, Any], resources: Path) -> tuple[list[Prompt], list[str]]:
    key = f"prompts.{spec['set']}"
    rows, name = _rows(spec, resources, key)
    layout = spec.get("layout") or "columns"
    read = items_of(rows, layout=layout, columns=spec.get("columns") or {}, key=key)
    passed = _where(rows, spec.get("where") or {}, key)
    category = spec.get("category") or ""
    items = [
        replace(item, category=item.category or category)
        for item, fits in zip(read, passed, strict=True)
        if item is not None and fits
    ]
    sized = _sized(items, spec)
    drawn = draw(
        sized,
        condition=spec.get("condition") or spec["set"],
        source=name,
        limit=spec.get("limit"),
        seed=spec.get("seed", 0),
        fractions=_fractions(spec),
        key=key,
    )
    counts = f"{name}: {len(rows)} rows, {len(items)} prompts, {len(sized)} of fitting size"
    lines = [counts, *drawn.lines()]
    limit = spec.get("limit")
    if limit and len(drawn.prompts) < limit:
        lines.append(f"note: fewer prompts than the limit of {limit}")
    return drawn.prompts, lines


def _rows(spec: Mapping[str, Any], resources: Path, key: str) -> tuple[list[Row], str]:
    """All rows of the file, and its name."""
    path, name = _locate(spec, resources, key)
    if spec.get("sha256"):
        check_sha256(path, spec["sha256"], key=f"{key}.sha256")
    place = {"file": "path", "hub": "file", "resource": "name"}[spec["source"]]
    return read_rows(path, key=f"{key}.{place}"), name


def _locate(spec: Mapping[str, Any], resources: Path, key: str) -> tuple[Path, str]:
    """The file, and a name for it that holds no path of this machine."""
    if spec["source"] == "file":
        path = Path(spec["path"]).expanduser()
        return path, path.name
    if spec["source"] == "resource":
        path = resources / f"{spec['name']}.jsonl"
        if not path.is_file():
            shipped = ", ".join(sorted(file.stem for file in resources.glob("*.jsonl")))
            raise UserError(f"{key}.name: no resource '{spec['name']}'; shipped are: {shipped}")
        return path, f"resource:{spec['name']}"
    if spec["source"] == "hub":
        repo, file = spec["repo"], spec["file"]
        path, commit = fetch_data(repo, file, spec.get("revision"), key=key)
        return path, f"{repo}@{commit[:12]}/{file}"
    raise UserError(
        f"{key}.source: '{spec['source']}' is unknown; allowed: zoo, file, hub, resource"
    )


def _where(rows: list[Row], where: Mapping[str, Any], key: str) -> list[bool]:
    present = list(dict.fromkeys(name for row in rows for name in row))
    for column in where:
        if column not in present:
            raise UserError(
                f"{key}.where.{column}: no such column; the file has {', '.join(present)}"
            )
    wanted = {
        column: set(map(str, value if isinstance(value, list) else [value]))
        for column, value in where.items()
    }
    return [
        all(str(row.get(column)) in values for column, values in wanted.items()) for row in rows
    ]


def _sized(items: list[Item], spec: Mapping[str, Any]) -> list[Item]:
    least, most = spec.get("min_chars") or 0, spec.get("max_chars")
    return [
        item for item in items if least <= len(item.text) and (not most or len(item.text) <= most)
    ]


def _fractions(spec: Mapping[str, Any]) -> dict[str, float]:
    if not spec.get("splits"):
        return dict(DEFAULT_FRACTIONS)
    shares = dict(spec["splits"])
    return {**shares, "heldout": 1 - sum(shares.values())}
