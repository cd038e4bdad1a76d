"""What of a checkpoint is read: the language model's type, its weights' names, their quantisation.

fp8 is read as plain weights, any other method is refused. No torch: the plan asks too.
"""

import re
from typing import Any

from actshift.errors import UserError
from actshift.models.sources import MODEL_TYPES, language_config, quantisation_of

#: `model_type` of a supported whole, and those that its `text_config` may have.
HOLDS_LANGUAGE_MODEL = {"mistral3": ("ministral3", "mistral")}
#: Weights' names as they are in such files, and as the language model's own class has them: both
#: ways in which transformers has written them.
NAMES_INSIDE = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
}
#: GPT-2's own release leaves out where its blocks stand.
_SHORT = re.compile(r"(?:h\.\d+|ln_f|wte|wpe)\.")
#: Weights that a file may hold though no forward pass reads them (docs/how-to/models.md): buffers
#: that old versions saved (rotary frequencies, causal masks, position numbers), the value head of
#: PPO, and the scales of a quantised cache of keys and values.
#: Copies of tied weights are no such case: transformers has a place for them.
_UNREAD = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$"
    r"|(^|\.)attn\.(masked_)?bias$"
    r"|(^|\.)position_ids$"
    r"|^v_head\."
    r"|\.[kv]_scale$"
)
#: Weights of a whole that are no part of its language model.
_OTHER_PART = re.compile(r"(?:model\.)?(?:vision_tower|multi_modal_projector)\.")
#: The method whose scales transformers multiplies out on load, into ordinary matrices.
FP8 = "fp8"
#: Methods whose weights can be read; None stands for plain weights.
READABLE = (None, FP8)


def language_type(config: dict[str, Any]) -> str | None:
    """`model_type` of the language model that is read; None where it is not supported.

    The config of a model that holds a language model beside an image encoder counts by its
    `text_config`.
    """
    whole, text = config.get("model_type"), language_config(config).get("model_type")
    if whole in HOLDS_LANGUAGE_MODEL:
        return text if text in HOLDS_LANGUAGE_MODEL[whole] else None
    return whole if whole in MODEL_TYPES else None


def unsupported(config: dict[str, Any]) -> str:
    """What to say of a parsed `config.json` whose architecture is not supported."""
    whole, text = config.get("model_type"), language_config(config).get("model_type")
    named = f"architecture {whole!r} (model_type in config.json)"
    if whole in HOLDS_LANGUAGE_MODEL:
        named = f"architecture {whole!r} around {text!r} (text_config in config.json)"
    inside = (f"{key} around {' or '.join(text)}" for key, text in HOLDS_LANGUAGE_MODEL.items())
    return (
        f"{named} is not supported; supported: {', '.join((*MODEL_TYPES, *inside))} "
        "(docs/how-to/models.md says how one is added)"
    )


def is_unread(weight: str) -> bool:
    """Whether no forward pass reads a weight, by its name in the file: it may be dropped."""
    return _UNREAD.search(weight) is not None


def is_other_part(weight: str) -> bool:
    """Whether a weight is of the image encoder around a language model, by its name in the file."""
    return _OTHER_PART.match(weight) is not None


def bare_name(name: str) -> str | None:
    """What the language model's own class calls a weight of a file; None if it reads none."""
    if is_other_part(name) or is_unread(name):
        return None
    if _SHORT.match(name):
        return f"transformer.{name}"
    for pattern, inside in NAMES_INSIDE.items():
        bare, changed = re.subn(pattern, inside, name)
        if changed:
            return bare
    return name


def unreadable(config: dict[str, Any]) -> str | None:
    """Why a checkpoint's weights cannot be read as plain matrices; None where they can."""
    method = quantisation_of(config)
    if method in READABLE:
        return None
    return (
        f"the weights are quantised ({method}, quantization_config in config.json) and are not "
        "read: take the checkpoint that they were made from, in bfloat16 or float16"
    )


def check_quantisation(config: dict[str, Any], *, name: str) -> str | None:
    """Refuse weights that cannot be read back as plain matrices.

    Returns the method, None for plain weights.

    Raises:
        UserError: They are quantised by another method than fp8; it is named.
    """
    reason = unreadable(config)
    if reason is not None:
        raise UserError(f"{name}: {reason}")
    return quantisation_of(config)
