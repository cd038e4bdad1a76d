"""docs/config.md, generated from the typed configuration (`make schema`)."""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from actshift.config.misalignment import AdapterData, Adapters, Misalignment
from actshift.config.prompts import PromptSource, Splits
from actshift.config.schema import (
    Config,
    Extract,
    Pair,
    Reference,
    Report,
    Revisions,
    Zoo,
)
from actshift.config.studies import (
    Ablation,
    Calibration,
    CalibrationEpochs,
    Judge,
    Localization,
    RankAudit,
    RefusalDirection,
)
from actshift.validation import Section

_SECTIONS: tuple[tuple[str, type[Section]], ...] = (
    ("Top level", Config),
    ("`pairs`: a list of", Pair),
    ("`pairs[].revision`: a string for both, or", Revisions),
    ("`pairs[].references`: a name for each source, or for each of", Reference),
    ("`zoo`", Zoo),
    ("`prompts`: a name for each of", PromptSource),
    ("`splits`", Splits),
    ("`extract`", Extract),
    ("`rank_audit`", RankAudit),
    ("`refusal_direction`", RefusalDirection),
    ("`ablation`", Ablation),
    ("`calibration`", Calibration),
    ("`calibration.epochs`", CalibrationEpochs),
    ("`localization`", Localization),
    ("`misalignment`", Misalignment),
    ("`misalignment.data`: an adapter's name for each of", AdapterData),
    ("`misalignment.adapters`", Adapters),
    ("`judge`", Judge),
    ("`report`", Report),
)

_HEAD = """# The configuration

Generated from `workflow/actshift/config.py` by `make schema`; do not edit.
An unknown key, a missing file or a value outside what is allowed stops the run before any job
starts, with one line that names the key.

`snakemake --configfile my.yaml` replaces the demo of `config.yaml`; single top-level values can
be given with `--config only=llama device=cpu`.
"""


def config_page() -> str:
    """Return the Markdown page: a table of keys for every section."""
    return "\n".join([_HEAD, *(_section(title, model) for title, model in _SECTIONS)])


def _section(title: str, model: type[Section]) -> str:
    rows = [
        f"| `{name}` | {_kind(name, model)} | {_default(field)} | {field.description} |"
        for name, field in model.model_fields.items()
    ]
    head = (
        f"## {title}\n\n{model.__doc__}\n\n| key | allowed | default | meaning |\n|---|---|---|---|"
    )
    return "\n".join([head, *rows]) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _kind(name: str, model: type[Section]) -> str:
    """Describe what a key allows, from the JSON schema."""
    return _allowed(model.model_json_schema()["properties"][name])


def _allowed(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{value}`" for value in values)
    if "anyOf" in schema:
        return " or ".join(_allowed(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return "a section"
    if schema["type"] == "array":
        return f"list of: {_allowed(schema['items'])}"
    if schema["type"] == "object":
        return "a mapping"
    kind: str = schema["type"]
    return ("empty" if kind == "null" else kind) + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("exclusiveMaximum", "<"))
    return "".join(f" {sign} {schema[key]}" for key, sign in signs if key in schema)
