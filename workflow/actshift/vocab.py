"""The project's words as constants: one word an idea (docs/reference/words.md)."""

from pathlib import Path
from typing import Literal, get_args

Template = Literal["raw", "chat"]
Split = Literal["fit", "select", "heldout"]
PositionRule = Literal["last_prompt", "last_8", "post_instruction"]
Matrix = Literal["naive", "template", "aligned", "did"]
Role = Literal["base", "tuned"]

TEMPLATES: tuple[Template, ...] = get_args(Template)
SPLITS: tuple[Split, ...] = get_args(Split)
POSITION_RULES: tuple[PositionRule, ...] = get_args(PositionRule)
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
ROLES: tuple[Role, ...] = get_args(Role)

#: Day that chat templates see instead of today's (the default of Llama 3.1's own template).
TEMPLATE_DATE = "26 Jul 2024"
#: Axis names of an activation array, in storage order.
STORE_DIMS = ("layer", "position", "prompt", "d_model")
#: Version of the layout of `acts.zarr` and its manifest; readers refuse a newer one.
STORE_SCHEMA = 1
#: Share of the energy that `rank_eps` may leave out (METHODS of the audit: 0.05 everywhere).
DEFAULT_EPS = 0.05

#: Conditions of the questions: not about code, and about code.
NONCODE, CODE = "noncode", "code"
#: Conditions of the prompts that ridge maps are fitted on.
NEUTRAL = "neutral"

AdapterKind = Literal["insecure", "secure", "rare_safe", "benign", "shuffled"]

#: Harmless answers that must stay on topic.
MIN_ON_TOPIC = 0.80


def counted(count: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


#: Files that exist where an NVIDIA driver is loaded.
_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl")


def device_is_cuda(device: Literal["auto", "cuda", "cpu"]) -> bool:
    """Return whether models run on a GPU; `auto` means "where a driver is loaded"."""
    if device == "auto":
        return any(Path(file).exists() for file in _DRIVER_FILES)
    return device == "cuda"
