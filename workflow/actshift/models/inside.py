"""Reading the language model alone out of a checkpoint that also sees images."""

from typing import Any

from transformers import PreTrainedConfig

from actshift.models.language_model import HOLDS_LANGUAGE_MODEL, NAMES_INSIDE, is_other_part


def left_aside(config: PreTrainedConfig, weight: str) -> bool:
    """Whether a weight belongs to a whole, but not to its language model."""
    return config.model_type in HOLDS_LANGUAGE_MODEL and is_other_part(weight)


def language_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the language model: of a supported whole its `text_config`.

    What the whole says of dtype, tied embeddings and quantisation holds for its language model too.
    """
    if config.model_type not in HOLDS_LANGUAGE_MODEL:
        return config
    text: Any = config.get_text_config()
    text.dtype = text.dtype or config.dtype
    text.tie_word_embeddings = getattr(config, "tie_word_embeddings", text.tie_word_embeddings)
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is not None:
        text.quantization_config = quantisation
    return text


def options_for(config: PreTrainedConfig) -> dict[str, Any]:
    """What `from_pretrained` needs to read the language model alone; nothing for a plain model.

    Returns the keywords `config` and `key_mapping`. The weights of the image encoder are left
    aside.
    """
    if config.model_type not in HOLDS_LANGUAGE_MODEL:
        return {}
    return {"config": language_part(config), "key_mapping": dict(NAMES_INSIDE)}
