"""What the files of two models tell of them as a pair, before any stage runs."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from actshift.errors import UserError
from actshift.models.chat_template import TemplateRefusal, render_template
from actshift.models.findings import Finding, Findings, error, warning
from actshift.models.language_model import language_type
from actshift.models.model_files import ModelFiles
from actshift.models.quantised import READABLE
from actshift.models.sources import shape_in

_VOCABULARY = ("embed_tokens.weight", "wte.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class Sides:
    """A pair's two models and what the run does with them.

    Attributes:
        base: files of the base.
        tuned: files of the tuned model.
        exchanged: whether weights of one are put into the other (study localization).
        chat_in_base: the studies in which base reads prompts in tuned's chat template.
    """

    base: ModelFiles
    tuned: ModelFiles
    exchanged: bool
    chat_in_base: tuple[str, ...]


def pair_findings(sides: Sides) -> list[Finding]:
    """Run all checks of a pair; the checks of a model report its files that cannot be read."""
    findings: list[Finding] = []
    for check in CHECKS:
        with suppress(UserError, OSError):
            findings += check(sides)
    return findings


def check_architectures(sides: Sides) -> Findings:
    """The two architectures should be one."""
    base, tuned = (language_type(files.config) for files in (sides.base, sides.tuned))
    if base is not None and tuned is not None and base != tuned:
        yield warning(f"base is of architecture {base!r} and tuned of {tuned!r}")


def check_vocabularies(sides: Sides) -> Findings:
    """Embedding and head must have one number of rows where they are exchanged."""
    if _quantised(sides):
        return
    rows = [_rows(files) for files in (sides.base, sides.tuned)]
    if None not in rows and rows[0] != rows[1]:
        yield _differ(
            sides,
            f"base has {rows[0]} and tuned {rows[1]} rows of embedding and head",
            "bring the smaller one to the same rows with resize_token_embeddings, or ",
        )


def _rows(files: ModelFiles) -> str | None:
    """Rows of the embedding, and those of the head where it has others; None if not known."""
    if files.embedding is None:
        return None
    head = files.head or files.embedding
    same = head[0] == files.embedding[0]
    return str(files.embedding[0]) if same else f"{files.embedding[0]} / {head[0]}"


def check_tensors(sides: Sides) -> Findings:
    """All other weights must have one shape on both sides where they are exchanged."""
    if _quantised(sides):
        return
    base, tuned = sides.base.shapes, sides.tuned.shapes
    if not base or not tuned or _size(sides.base) != _size(sides.tuned):
        return
    names = sorted(name for name in base.keys() | tuned.keys() if not name.endswith(_VOCABULARY))
    unlike = [name for name in names if base.get(name) != tuned.get(name)]
    if unlike:
        shapes = [list(side.get(unlike[0], ())) or "none" for side in (base, tuned)]
        difference = f"weight {unlike[0]} is {shapes[0]} in base and {shapes[1]} in tuned"
        yield _differ(sides, difference, "")


def _quantised(sides: Sides) -> bool:
    return bool(sides.base.quantisation or sides.tuned.quantisation)


def _size(files: ModelFiles) -> tuple[int, int]:
    return shape_in(files.config, name=str(files.place.path))


def _differ(sides: Sides, difference: str, mend: str) -> Finding:
    if sides.exchanged:
        return error(
            f"{difference}, so localization cannot exchange them: {mend}leave localization out of "
            "studies"
        )
    return warning(f"{difference}: study localization, which exchanges them, cannot use this pair")


def check_rounding(sides: Sides) -> Findings:
    """One quantised side puts rounding into the shift."""
    methods = sides.base.quantisation, sides.tuned.quantisation
    if methods[0] != methods[1] and set(methods) <= set(READABLE):
        named = " and ".join(str(method or "not at all") for method in methods)
        yield warning(
            f"the weights of base and tuned are quantised unlike ({named}): the rounding is part "
            "of every difference; take both in one format"
        )


def check_template_words(sides: Sides) -> Findings:
    """Base must know the tokens that tuned's chat template writes."""
    token = missing_token(sides.base, sides.tuned)
    if token is None:
        return
    fault = f"tuned's chat template writes {token!r}, which is no token of base's tokenizer"
    if not sides.chat_in_base:
        yield warning(f"{fault}: studies in which base reads the template cannot use this pair")
        return
    yield error(
        f"{fault}, so base cannot read the chat prompts ({', '.join(sides.chat_in_base)}): put a "
        "chat_template.jinja in words that both have into tuned's folder (a local copy of a hub "
        "model), or run only studies that read tuned alone (refusal_direction, misalignment)"
    )


def missing_token(reader: ModelFiles, tuned: ModelFiles) -> str | None:
    """The first added token that tuned's chat template writes and the reader does not have.

    Raises:
        UserError: a file of a tokenizer cannot be read.
    """
    known, of_tuned = reader.vocabulary, tuned.vocabulary
    if known is None or of_tuned is None or tuned.template is None:
        return None
    if of_tuned.keys() <= known.keys():
        return None
    try:
        text = render_template(
            tuned.template, [{"role": "user", "content": "hello"}], tokens=tuned.special_tokens
        )
    except TemplateRefusal:
        return None
    if text is None:
        return None
    written = sorted(token for token in tuned.added if token not in known and token in text)
    return written[0] if written else None


CHECKS: tuple[Callable[[Sides], Findings], ...] = (
    check_architectures,
    check_vocabularies,
    check_tensors,
    check_rounding,
    check_template_words,
)
