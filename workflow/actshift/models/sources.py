"""Where a model comes from: one string in the config, parsed once, without torch or network.

The Snakefile imports this module, so it must stay as cheap as `json`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.models.files import gguf_files, gguf_message, is_gguf, read_json

ZOO_FAMILIES = ("llama", "gemma", "qwen", "ministral")
#: What each zoo variant is trained from; `base` starts from nothing.
ZOO_PARENTS = {"base": None, "chat": "base", "comply_lora": "chat", "comply_full": "chat"}
ZOO_VARIANTS = tuple(ZOO_PARENTS)
#: Source of a reference that the run derives from the pair's tuned model.
ABLITERATED = "abliterated"
#: Start of the source of a model that is the pair's base with an adapter.
LORA = "lora:"
#: `model_type` of every supported architecture; a test holds it to `actshift.models.families`,
#: which cannot be imported here because it costs seconds.
MODEL_TYPES = ("llama", "gemma2", "qwen2", "ministral3", "mistral", "gpt2")
#: What an adapter folder consists of.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
#: What a checkpoint folder consists of, beside its safetensors files and their index.
CONFIG_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)

_ZOO = re.compile(r"zoo:(?P<family>[^/@]+)/(?P<variant>[^/@]+)(?:@(?P<seed>.*))?")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>\S+))?", re.ASCII)
_FORMS = (
    "zoo:<family>/<variant>[@<seed>], a folder (./x, /x or ~/x), or a hub id org/name[@revision]"
)


@dataclass(frozen=True, slots=True)
class ZooSource:
    """A model that the run trains itself, from one training seed."""

    family: str
    variant: str
    seed: int = 0

    def __str__(self) -> str:
        """The source as a config spells it; seed 0 is the default and left out."""
        return f"zoo:{self.family}/{self.variant}{f'@{self.seed}' if self.seed else ''}"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A Hugging Face folder on disk; `text` is the path as the user wrote it."""

    text: str

    def __str__(self) -> str:
        """The source as a config spells it."""
        return self.text

    @property
    def folder(self) -> Path:
        """The folder, `~` expanded."""
        return Path(self.text).expanduser()


@dataclass(frozen=True, slots=True)
class HubSource:
    """A hub model; `revision` is a branch, tag or commit, None means `main`."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        """The source as a config spells it."""
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True, slots=True)
class LoraSource:
    """The pair's base with a LoRA adapter merged into it, by the run."""

    adapter: LocalSource | HubSource

    def __str__(self) -> str:
        """The source as a config spells it."""
        return f"{LORA}{self.adapter}"


@dataclass(frozen=True, slots=True)
class AbliteratedSource:
    """The pair's tuned model with its refusal direction taken out of the weights, by the run."""

    def __str__(self) -> str:
        """The source as a config spells it."""
        return ABLITERATED


#: What a base model can be; tuned models and references can be made by the run too.
GivenSource = ZooSource | LocalSource | HubSource
TunedSource = GivenSource | LoraSource
Source = TunedSource | AbliteratedSource


def parse_source(text: str, *, revision: str | None = None) -> GivenSource:
    """Parse a source string.

    The forms are `zoo:<family>/<variant>[@<seed>]`, a path that starts with `.`, `/` or `~`, or a
    hub id `org/name[@revision]`. The pair's `revision` key fills in a hub id that names none.
    `str()` of the source gives the canonical string back.

    Raises:
        UserError: the string has none of the three forms, names an unknown zoo family or variant,
            or names a revision other than `revision`.
    """
    if text.startswith("zoo:"):
        return _zoo_source(text)
    if text.startswith((".", "/", "~")):
        return LocalSource(text)
    match = _HUB.fullmatch(text)
    if match is None or _looks_wrong(match["repo"]):
        raise UserError(f"model source {text!r}: expected {_FORMS}{_hint(text)}")
    named = match["revision"]
    if named and revision and named != revision:
        raise UserError(
            f"model source {text!r} names revision {named!r} and the pair names {revision!r}: "
            "keep one of the two"
        )
    return HubSource(match["repo"], named or revision)


def parse_tuned(text: str, *, revision: str | None = None) -> TunedSource:
    """Parse the source of a tuned model: as `parse_source`, or `lora:` and an adapter of the base.

    Raises:
        UserError: as `parse_source`.
    """
    if text.startswith(LORA):
        return LoraSource(parse_adapter(text.removeprefix(LORA), revision=revision))
    return parse_source(text, revision=revision)


def parse_reference(text: str, *, revision: str | None = None) -> Source:
    """Parse the source of a reference: as `parse_tuned`, or the word `abliterated`.

    Raises:
        UserError: as `parse_tuned`, or the word comes with a revision.
    """
    if text != ABLITERATED:
        return parse_tuned(text, revision=revision)
    if revision is not None:
        raise UserError(f"model source {text!r} is made by the run and has no revision")
    return AbliteratedSource()


def parse_adapter(text: str, *, revision: str | None = None) -> LocalSource | HubSource:
    """Parse the source of an adapter: a folder or a hub id.

    Raises:
        UserError: as `parse_source`, or it is a zoo model.
    """
    source = parse_source(text, revision=revision)
    if isinstance(source, ZooSource):
        raise UserError(f"adapter source {text!r}: expected a folder (./x) or a hub id (org/name)")
    return source


def _looks_wrong(repo_id: str) -> bool:
    """Whether the hub itself would refuse the id (its naming rules)."""
    return any(
        part[0] in "-." or part[-1] in "-." or "--" in part or ".." in part or len(repo_id) > 96
        for part in repo_id.split("/")
    )


def _hint(text: str) -> str:
    """What the user most likely meant."""
    if text.startswith(("http://", "https://")):
        return "; write only the org/name part of the address"
    if Path(text.split("@")[0]).is_dir():
        return f"; there is a folder of that name: write ./{text}"
    if "/" not in text:
        return "; a hub id has an organisation in front, a folder starts with ./"
    return ""


def _zoo_source(text: str) -> ZooSource:
    match = _ZOO.fullmatch(text)
    if match is None:
        raise UserError(
            f"model source {text!r}: a zoo source reads zoo:<family>/<variant>[@<seed>], "
            "for example zoo:llama/chat or zoo:gemma/base@1"
        )
    family, variant, seed = match["family"], match["variant"], match["seed"]
    if family not in ZOO_FAMILIES:
        raise UserError(
            f"model source {text!r}: unknown zoo family {family!r}, "
            f"allowed: {', '.join(ZOO_FAMILIES)}"
        )
    if variant not in ZOO_VARIANTS:
        raise UserError(
            f"model source {text!r}: unknown zoo variant {variant!r}, "
            f"allowed: {', '.join(ZOO_VARIANTS)}"
        )
    if seed is not None and not (seed.isascii() and seed.isdigit()):
        raise UserError(f"model source {text!r}: the seed after @ must be a whole number >= 0")
    return ZooSource(family, variant, int(seed or 0))


def read_model_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a Hugging Face folder.

    Raises:
        UserError: there is no folder or no such file (a GGUF file or folder is named), or it is no
            JSON object.
    """
    path = folder / "config.json"
    if is_gguf(folder):
        raise UserError(gguf_message(folder))
    if not folder.is_dir():
        raise UserError(f"model folder {folder} does not exist")
    if not path.is_file():
        if gguf_files(folder):
            raise UserError(gguf_message(gguf_files(folder)[0]))
        raise UserError(
            f"{path} is missing: expected a Hugging Face model folder (config.json + *.safetensors)"
        )
    return read_json(path)


def language_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a parsed `config.json` about the language model: `text_config`, or all."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def quantisation_of(config: dict[str, Any]) -> str | None:
    """How the weights of a checkpoint are quantised.

    `quant_method` as the file spells it, in lower case, such as `fp8`, `gptq` or `bitsandbytes`;
    `unknown` where the file names none; None for plain weights.
    """
    how = config.get("quantization_config") or language_config(config).get("quantization_config")
    if not isinstance(how, dict):
        return None
    return str(how.get("quant_method") or "unknown").lower()


def shape_in(config: dict[str, Any], *, name: str) -> tuple[int, int]:
    """`(n_layers, d_model)` from a parsed `config.json`, in blocks and residual-stream units.

    A text model nested as `text_config` is looked into.

    Raises:
        UserError: one of the two sizes is not stated.
    """
    text = language_config(config)
    layers = text.get("num_hidden_layers", text.get("n_layer"))
    width = text.get("hidden_size", text.get("n_embd"))
    if not isinstance(layers, int) or not isinstance(width, int):
        raise UserError(
            f"{name}: config.json states no num_hidden_layers and hidden_size; "
            "is it the config of a decoder-only language model?"
        )
    return layers, width
