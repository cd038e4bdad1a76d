"""What the files of a model say of it, read once before any stage runs, without transformers.

The stages render chat templates with the tokenizer itself; a template that this module cannot
render is left to them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.models.files import (
    Shapes,
    folder_shapes,
    read_json,
    refuse_pointer,
    safetensors_names,
)
from actshift.models.language_model import bare_name
from actshift.models.on_disk import Place
from actshift.models.sources import language_config, quantisation_of, read_model_config
from actshift.vocab import TEMPLATE_DATE

_MARKS = re.compile(r"(\{%[-+]?)\s*(end)?generation\s*([-+]?%\})")
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
_HEAD = "lm_head.weight"


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


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this disk; each is read when it is first asked for.

    Attributes:
        place: where they lie.
        template_folder: where the chat template lies, if it is not that of the place: a merged
            adapter may bring one.
    """

    place: Place
    template_folder: Path | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`.

        Raises:
            UserError: as `read_model_config`.
        """
        return read_model_config(self.place.path)

    @property
    def text(self) -> dict[str, Any]:
        """The part of `config` about the language model."""
        return language_config(self.config)

    @property
    def quantisation(self) -> str | None:
        """How the weights are quantised (`quantisation_of`)."""
        return quantisation_of(self.config)

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the language model's tensors, by the names that its own class gives them.

        Empty where a hub model's weights are not all in the cache.

        Raises:
            UserError: as `folder_shapes`.
        """
        folder = self.place.path
        if not self.place.whole and not all(
            (folder / name).is_file() for name in safetensors_names(folder)
        ):
            return {}
        named = ((bare_name(name), shape) for name, shape in folder_shapes(folder).items())
        return {name: shape for name, shape in named if name is not None}

    @property
    def embedding(self) -> tuple[int, ...] | None:
        """`(rows, width)` of the token embedding, None where it is not known."""
        shapes = (self.shapes[name] for name in _EMBEDDINGS if name in self.shapes)
        return next(shapes, None)

    @property
    def head(self) -> tuple[int, ...] | None:
        """`(rows, width)` of a head of its own, None where it is the embedding or not known."""
        return self.shapes.get(_HEAD)

    @cached_property
    def vocabulary(self) -> dict[str, int] | None:
        """Token ids of `tokenizer.json` by token, added ones included; None without the file.

        Raises:
            UserError: the file is a Git LFS pointer, no JSON object or no tokenizer.
        """
        return None if self._tokens is None else self._tokens[0] | self._tokens[1]

    @property
    def added(self) -> dict[str, int]:
        """Token ids of the tokens that were added to the vocabulary, by token.

        Raises:
            UserError: as `vocabulary`.
        """
        return {} if self._tokens is None else self._tokens[1]

    @cached_property
    def _tokens(self) -> tuple[dict[str, int], dict[str, int]] | None:
        path = self.place.path / "tokenizer.json"
        if not path.is_file():
            return None
        core = read_json(path)
        try:
            vocab = core["model"]["vocab"]
            # A unigram vocabulary lists pieces with their scores, numbered by their place.
            is_listed = not isinstance(vocab, dict)
            ids = {piece[0]: i for i, piece in enumerate(vocab)} if is_listed else dict(vocab)
            added = {token["content"]: token["id"] for token in core.get("added_tokens") or []}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise UserError(
                f"{path} is no tokenizer (it has no vocabulary): save the tokenizer again"
            ) from None
        try:
            for token, number in self._added_elsewhere():
                added.setdefault(token, number)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{self.place.path}: added_tokens_decoder of tokenizer_config.json or "
                "added_tokens.json is not as transformers writes it: save the tokenizer again"
            ) from None
        return ids, added

    def _added_elsewhere(self) -> Iterator[tuple[str, int]]:
        """Tokens that only the files beside `tokenizer.json` name; transformers adds them too."""
        settings, older = (
            self.place.path / name for name in ("tokenizer_config.json", "added_tokens.json")
        )
        decoder = read_json(settings).get("added_tokens_decoder") if settings.is_file() else None
        for number, token in (decoder or {}).items():
            yield token["content"], int(number)
        if older.is_file():
            for token, number in read_json(older).items():
                yield token, int(number)

    @cached_property
    def template(self) -> str | None:
        """The chat template's text (`chat_template_of`)."""
        return chat_template_of(self.template_folder or self.place.path)

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Special tokens by name (`special_tokens_of`)."""
        return special_tokens_of(self.place.path)
