"""A model folder's chat template, read and rendered without transformers.

For the plan, which must not load it. The stages render with the tokenizer itself; a template that
this module cannot render is left to them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.models.files import read_json, refuse_pointer
from actshift.vocab import TEMPLATE_DATE

_MARKS = re.compile(r"(\{%[-+]?)\s*(end)?generation\s*([-+]?%\})")


class TemplateRefusal(Exception):
    """A chat template refused a conversation by `raise_exception`; the text is its reason."""


def chat_template_of(folder: Path) -> str | None:
    """The chat template that a tokenizer of this folder would carry.

    It is Jinja text: `chat_template.jinja`, else the default of `tokenizer_config.json`; None
    without one.

    Raises:
        UserError: a file is a Git LFS pointer, `chat_template.jinja` is not UTF-8, or
            `tokenizer_config.json` is no JSON object.
    """
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        refuse_pointer(jinja)
        try:
            return jinja.read_text(encoding="utf-8")
        except UnicodeDecodeError as fault:
            raise UserError(f"{jinja} is not UTF-8 ({fault.reason}): save it as UTF-8") from None
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None
    template = read_json(settings).get("chat_template")
    if isinstance(template, list):
        named = [row for row in template if isinstance(row, dict) and row.get("name") == "default"]
        template = named[-1].get("template") if named else None
    return template if isinstance(template, str) and template else None


def special_tokens_of(folder: Path) -> dict[str, str]:
    """The special tokens that `tokenizer_config.json` names, such as `bos_token`.

    Raises:
        UserError: the file is a Git LFS pointer or no JSON object.
    """
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return {}
    named: dict[str, str] = {}
    for key, value in read_json(settings).items():
        token = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(token, str):
            named[key] = token
    return named


def render_template(
    template: str, messages: Sequence[Mapping[str, str]], *, tokens: Mapping[str, str]
) -> str | None:
    """Render a conversation up to where the next answer begins.

    `tokens` are special tokens by name, as templates read them. None where this environment cannot
    render the template.

    Raises:
        TemplateRefusal: the template refuses the conversation by its own words.
    """
    # Only here: most plans have no model on this disk.
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    known = {"raise_exception": _refuse, "strftime_now": lambda _format: TEMPLATE_DATE}
    try:
        return environment.from_string(_without_marks(template)).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            date_string=TEMPLATE_DATE,
            tools=None,
            documents=None,
            **known,
            **tokens,
        )
    except TemplateRefusal:
        raise
    # A template is a program: what this environment cannot run, the tokenizer's own may.
    except Exception:
        return None


def _refuse(reason: object) -> None:
    raise TemplateRefusal(" ".join(str(reason).split()))


def _tojson(value: Any, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=how.get("ensure_ascii", False), indent=how.get("indent"))


def _without_marks(template: str) -> str:
    """Take out the marks of what an assistant wrote, a tag that only transformers knows."""
    return _MARKS.sub(
        lambda mark: f"{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}", template
    )
