"""The one table of architectures: where a model keeps its blocks, and how to build a small one."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Ministral3Config,
    Ministral3ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from actshift.edits import EditSite
from actshift.errors import UserError


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: its classes and the attribute paths of its parts.

    Attributes:
        key: `model.config.model_type`.
        attention: attention implementation it needs, or None for the library's choice.
        positions: path of learned position embeddings, or None.
        attn_out: path inside a block of the module whose output attention adds to the stream.
        mlp_out: the same for the MLP.
        attention_half: paths inside a block of the modules of its attention half, norms included.
        mlp_half: the same for the MLP half; the two halves are the whole block.
    """

    key: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    attention: str | None = None
    blocks: str = "model.layers"
    embedding: str = "model.embed_tokens"
    positions: str | None = None
    final_norm: str = "model.norm"
    head: str = "lm_head"
    attn_out: str = "self_attn"
    mlp_out: str = "mlp"
    attention_half: tuple[str, ...] = ("input_layernorm", "self_attn")
    mlp_half: tuple[str, ...] = ("post_attention_layernorm", "mlp")


_TABLE = (
    Family("llama", LlamaConfig, LlamaForCausalLM),
    # Soft-capped attention scores exist in the eager implementation only.
    Family(
        "gemma2",
        Gemma2Config,
        Gemma2ForCausalLM,
        attention="eager",
        # What a block adds to the stream has passed a norm of its own.
        attn_out="post_attention_layernorm",
        mlp_out="post_feedforward_layernorm",
        attention_half=("input_layernorm", "self_attn", "post_attention_layernorm"),
        mlp_half=("pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm"),
    ),
    Family("qwen2", Qwen2Config, Qwen2ForCausalLM),
    Family("ministral3", Ministral3Config, Ministral3ForCausalLM),
    Family("mistral", MistralConfig, MistralForCausalLM),
    Family(
        "gpt2",
        GPT2Config,
        GPT2LMHeadModel,
        blocks="transformer.h",
        embedding="transformer.wte",
        positions="transformer.wpe",
        final_norm="transformer.ln_f",
        attn_out="attn",
        attention_half=("ln_1", "attn"),
        mlp_half=("ln_2", "mlp"),
    ),
)
FAMILIES: dict[str, Family] = {family.key: family for family in _TABLE}


def family_of(model_type: str) -> Family:
    """Look an architecture up by `model.config.model_type`.

    Raises:
        UserError: It is not in the table; the message gives the line to add.
    """
    if model_type not in FAMILIES:
        raise UserError(
            f"architecture {model_type!r} is not supported (known: {', '.join(FAMILIES)}): add "
            f'Family("{model_type}", <Config>, <ForCausalLM>) to _TABLE in models/families.py'
        )
    return FAMILIES[model_type]


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks of a causal language model, in order."""
    return _part(model, "blocks")


def embedding_of(model: nn.Module) -> nn.Module:
    """The token embedding."""
    return _part(model, "embedding")


def embeddings_of(model: Any) -> tuple[nn.Module, ...]:
    """The token embedding, and the learned position embedding where there is one."""
    learned = family_of(model.config.model_type).positions
    return (embedding_of(model), *([_part(model, "positions")] if learned else []))


def final_norm_of(model: nn.Module) -> nn.Module:
    """The norm between the last block and the head."""
    return _part(model, "final_norm")


def head_of(model: nn.Module) -> nn.Module:
    """The language-model head."""
    return _part(model, "head")


def edit_sites(model: Any) -> dict[EditSite, tuple[nn.Module, ...]]:
    """Where lanes may edit a causal language model: one module a block for every site.

    Raises:
        UserError: The architecture is not in the table, or its row names a part it lacks.
    """
    blocks = tuple(blocks_of(model))
    family = family_of(model.config.model_type)
    return {
        "resid_pre": blocks,
        "attn_out": tuple(_at(block, family.attn_out, "attn_out") for block in blocks),
        "mlp_out": tuple(_at(block, family.mlp_out, "mlp_out") for block in blocks),
        "resid_post": blocks,
    }


def block_halves(model: Any) -> tuple[list[list[nn.Module]], list[list[nn.Module]]]:
    """The modules of every block's attention half, and those of every block's MLP half.

    Raises:
        UserError: The architecture is not in the table, or its row names a part it lacks.
    """
    family = family_of(model.config.model_type)
    blocks = blocks_of(model)
    attention, mlp = (
        [[_at(block, path, half) for path in getattr(family, half)] for block in blocks]
        for half in ("attention_half", "mlp_half")
    )
    return attention, mlp


def _part(model: Any, part: str) -> Any:
    return _at(model, getattr(family_of(model.config.model_type), part), part)


def _at(module: Any, path: str, part: str) -> Any:
    try:
        return attrgetter(path)(module)
    except AttributeError as error:
        name = type(module).__name__
        raise UserError(
            f"{name} has no {path!r}: correct `{part}` of its row in models/families.py"
        ) from error


@dataclass(frozen=True, slots=True)
class Dims:
    """Sizes of a model built from nothing."""

    vocab_size: int
    d_model: int = 64
    n_layers: int = 6
    n_heads: int = 4
    n_kv_heads: int = 2
    d_head: int = 16
    d_mlp: int = 128
    max_positions: int = 256


def build(family: str, dims: Dims, *, special: dict[str, Any] | None = None) -> Any:
    """Build a randomly initialised causal language model in float32 (seed torch beforehand).

    `special` holds ids for `bos_token_id`, `eos_token_id` and `pad_token_id`. The model is in
    evaluation mode.

    Raises:
        UserError: The family is unknown.
    """
    entry = family_of(family)
    options = _gpt2_options(dims) if family == "gpt2" else _rotary_options(family, dims)
    ids = special or {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = entry.config_class(dtype="float32", **options, **ids)
    if entry.attention:
        config._attn_implementation = entry.attention
    return entry.model_class(config).eval()


def _gpt2_options(dims: Dims) -> dict[str, Any]:
    return {
        "vocab_size": dims.vocab_size,
        "n_embd": dims.d_model,
        "n_layer": dims.n_layers,
        "n_head": dims.n_heads,
        "n_inner": dims.d_mlp,
        "n_positions": dims.max_positions,
    }


def _rotary_options(family: str, dims: Dims) -> dict[str, Any]:
    options: dict[str, Any] = {
        "vocab_size": dims.vocab_size,
        "hidden_size": dims.d_model,
        "num_hidden_layers": dims.n_layers,
        "num_attention_heads": dims.n_heads,
        "num_key_value_heads": dims.n_kv_heads,
        "intermediate_size": dims.d_mlp,
        "max_position_embeddings": dims.max_positions,
        "tie_word_embeddings": family == "gemma2",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if family != "qwen2":
        options["head_dim"] = dims.d_head
    if family == "gemma2":
        # Gemma's blocks end in a norm: at the usual 0.02 a narrow model's tokens drown in the first
        # blocks' outputs, and learning starts hundreds of steps later.
        options |= {
            "query_pre_attn_scalar": dims.d_head,
            "sliding_window": dims.max_positions,
            "initializer_range": dims.d_model**-0.5,
        }
    if family == "ministral3":
        options["rope_parameters"] = _ministral_rope(dims.max_positions)
    return options


def _ministral_rope(max_positions: int) -> dict[str, Any]:
    # The family's YaRN, its original length set to ours: factor 1 and no query scaling inside it.
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 1.0,
        "original_max_position_embeddings": max_positions,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
