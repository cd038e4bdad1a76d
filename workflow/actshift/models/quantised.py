"""Checkpoints with quantised weights: fp8 is read as plain weights, any other method is refused.

No torch is imported here, since the plan asks too.
"""

from typing import Any

from actshift.errors import UserError
from actshift.models.sources import quantisation_of

#: The method whose scales transformers multiplies out on load, into ordinary matrices.
FP8 = "fp8"
#: Methods whose weights can be read; None stands for plain weights.
READABLE = (None, FP8)


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


def dequantising(config: Any) -> dict[str, Any]:
    """Options of `from_pretrained` that read fp8 weights as plain ones, on every device.

    Without them a GPU that has the kernels would get linear maps of another class. `config`, as
    transformers reads it, is changed in place; plain weights need no options.
    """
    how = getattr(config, "quantization_config", None)
    if not isinstance(how, dict) or str(how.get("quant_method")).lower() != FP8:
        return {}
    config.quantization_config = how | {"dequantize": True}
    return {"config": config}


def as_plain(model: Any) -> None:
    """Give a model read from fp8 weights one dtype, and nothing of their quantisation.

    The library leaves what was not quantised in the dtype of the file, and would quantise all
    matrices again when the model is saved, under a config.json that says nothing of it.
    """
    model.to(model.config.dtype)
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
