"""What the files of one model, or of a pair, tell before any stage runs: one line a finding."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from actshift.errors import UserError, one_line, refusal_of
from actshift.models.files import (
    gguf_files,
    gguf_message,
    is_lfs_pointer,
    lfs_message,
    pickled_weights,
    safetensors_names,
)
from actshift.models.language_model import READABLE, language_type, unreadable, unsupported
from actshift.models.model_files import ModelFiles, TemplateRefusal, render_template
from actshift.models.sources import ADAPTER_FILES, LORA, TOKENIZER_FILES, shape_in

Level = Literal["ok", "warning", "error"]
#: What the attention of ministral3 reads of `rope_parameters`.
_SCALING = ("llama_4_scaling_beta", "original_max_position_embeddings")
_VOCABULARY = ("embed_tokens.weight", "wte.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says; an `error` would end a run sooner or later."""

    level: Level
    text: str


def error(text: str) -> Finding:
    """A finding that would end a run."""
    return Finding("error", text)


def warning(text: str) -> Finding:
    """A finding that a run can live with."""
    return Finding("warning", text)


Findings = Iterator[Finding]


def model_findings(files: ModelFiles) -> list[Finding]:
    """Run all checks of one model, in their order.

    What the hub's cache lacks is no finding. A file that cannot be read is one finding, however
    many checks need it.
    """
    findings: list[Finding] = []
    for check in _MODEL_CHECKS:
        unread = False
        try:
            findings += check(files)
        except UserError as fault:
            findings.append(error(str(fault)))
            unread = True
        except OSError as fault:
            findings.append(error(refusal_of(fault, files.place.path) or one_line(fault)))
            unread = True
        if (check is check_adapter and findings) or (check is check_architecture and unread):
            break  # an adapter is no model; without config.json nothing else can be said
    return list(dict.fromkeys(findings))


def check_adapter(files: ModelFiles) -> Findings:
    """An adapter's folder is no model; what training left beside a merged one does no harm."""
    folder = files.place.path
    config, weights = ADAPTER_FILES
    if not (folder / config).is_file():
        return
    has_adapter = (folder / weights).is_file() or (folder / "adapter_model.bin").is_file()
    if safetensors_names(folder):
        if has_adapter:
            yield error(
                f"{folder} holds a model and an adapter ({config}): write {LORA} before it for the "
                "pair's base with the adapter, or move the adapter's files away for the model"
            )
    elif has_adapter or not (folder / "config.json").is_file():
        yield error(f"{folder} holds an adapter ({config}): write {LORA} before it")


def check_architecture(files: ModelFiles) -> Findings:
    """The architecture must be in the table."""
    if language_type(files.config) is not None:
        shape_in(files.config, name=str(files.place.path))
        return
    yield error(unsupported(files.config))


def check_rope(files: ModelFiles) -> Findings:
    """Ministral 3 scales its queries with the position by two numbers that have no default."""
    rope = files.text.get("rope_parameters")
    if language_type(files.config) != "ministral3" or not isinstance(rope, dict):
        return
    missing = [key for key in _SCALING if rope.get(key) is None]
    if missing:
        yield error(
            f"rope_parameters in config.json has no {missing[0]}, without which ministral3 cannot "
            "run: take config.json from the model's release; a model that scales no queries is of "
            "model_type mistral"
        )


def check_quantisation(files: ModelFiles) -> Findings:
    """Quantised weights are read in one format only."""
    reason = unreadable(files.config)
    if reason is not None:
        yield error(reason)


def check_weights(files: ModelFiles) -> Findings:
    """Safetensors weights must be there, whole, and those that config.json describes."""
    folder = files.place.path
    if not safetensors_names(folder):
        if files.place.whole:
            yield _no_weights(files)
        return
    if not files.shapes or files.quantisation is not None:
        return
    n_layers, width = shape_in(files.config, name=str(folder))
    blocks = {_block(name) for name in files.shapes} - {None}
    if blocks and len(blocks) < n_layers:
        yield error(
            f"config.json says {n_layers} blocks and the weights hold {len(blocks)}: they do not "
            "belong together; fetch or save the model again"
        )
    if files.embedding is not None and files.embedding[1] != width:
        yield error(
            f"config.json says hidden_size {width} and the embedding is {files.embedding[1]} wide: "
            "they do not belong together; fetch or save the model again"
        )


def _no_weights(files: ModelFiles) -> Finding:
    folder = files.place.path
    pickled, gguf = pickled_weights(folder), gguf_files(folder)
    if gguf:
        return error(gguf_message(gguf[0]))
    shards = sorted(folder.glob("model*.safetensors"))
    if shards and not shards[0].is_file():
        return error(f"{shards[0]} is a link that leads nowhere: mend it, or fetch the file again")
    if shards:
        return error(
            f"{folder} has {shards[0].name} and neither model.safetensors nor "
            "model.safetensors.index.json: name one file model.safetensors, or fetch the index too"
        )
    if pickled:
        return error(
            f"{folder} has its weights only as {pickled[0].name}; pickled weights run code when "
            "they are opened and are never loaded: convert them to safetensors (load the model in "
            "a session that you trust, then save_pretrained)"
        )
    return error(f"{folder} has no *.safetensors: save the model with save_pretrained")


def _block(name: str) -> int | None:
    for prefix in ("model.layers.", "transformer.h."):
        if name.startswith(prefix):
            number = name.removeprefix(prefix).split(".")[0]
            return int(number) if number.isdigit() else None
    return None


def check_tokenizer(files: ModelFiles) -> Findings:
    """A fast tokenizer (`tokenizer.json`) must be there."""
    folder = files.place.path
    for name in TOKENIZER_FILES:
        if is_lfs_pointer(folder / name):
            yield error(lfs_message(folder / name))
            return
    if (folder / "tokenizer.json").is_file() or not files.place.whole:
        return
    slow = [name for name in ("tokenizer.model", "vocab.json") if (folder / name).is_file()]
    if slow:
        have = "vocab.json and merges.txt" if slow == ["vocab.json"] else slow[0]
        yield error(
            f"{folder} has its tokenizer only as {have} and a tokenizer.json is needed: write one "
            "there with transformers, AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    else:
        yield error(f"{folder} has no tokenizer.json: save the tokenizer there too")


def check_vocabulary(files: ModelFiles) -> Findings:
    """Embedding, head, config.json and tokenizer must agree on the number of tokens."""
    rows = files.embedding[0] if files.embedding else None
    if rows is None or files.quantisation is not None:
        return
    stated = files.text.get("vocab_size")
    for part, shape in (("embedding", files.embedding), ("head", files.head)):
        if shape is not None and stated is not None and shape[0] != stated:
            yield error(
                f"config.json says vocab_size {stated} and the {part} has {shape[0]} rows: they do "
                "not belong together; save the model again after resize_token_embeddings"
            )
    beyond = sorted((i, token) for token, i in (files.vocabulary or {}).items() if i >= rows)
    if beyond:
        yield warning(
            f"tokenizer.json has {len(beyond)} tokens beyond the {rows} rows of the embedding, "
            f"first {beyond[0][1]!r} ({beyond[0][0]}): a prompt that holds one is refused"
        )


def check_template(files: ModelFiles) -> Findings:
    """A chat template, where there is one, must render a question with tokens that have weights."""
    if files.template is None:
        return
    try:
        text = render_template(
            files.template, [{"role": "user", "content": "hello"}], tokens=files.special_tokens
        )
    except TemplateRefusal as refusal:
        yield error(f"its chat template refuses a conversation of one question ({refusal})")
        return
    rows = files.embedding[0] if files.embedding else None
    for token, number in sorted((files.vocabulary or {}).items()):
        if rows is not None and number >= rows and text and token in text:
            yield error(
                f"its chat template writes {token!r}, token {number} of {rows} embeddings: the "
                "tokenizer does not belong to the weights"
            )
            return


_MODEL_CHECKS: tuple[Callable[[ModelFiles], Findings], ...] = (
    check_adapter,
    check_architecture,
    check_rope,
    check_quantisation,
    check_weights,
    check_tokenizer,
    check_vocabulary,
    check_template,
)


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
    for check in _PAIR_CHECKS:
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


_PAIR_CHECKS: tuple[Callable[[Sides], Findings], ...] = (
    check_architectures,
    check_vocabularies,
    check_tensors,
    check_rounding,
    check_template_words,
)
