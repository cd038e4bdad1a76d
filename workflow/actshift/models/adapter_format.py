"""The format of peft's adapter folders: their files, settings and matrices.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. The base is named by the hash
of its weights, never by a path: a folder may move, and another base is noticed.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from actshift.errors import UserError
from actshift.models.files import read_json, refuse_pointer, tensor_shapes
from actshift.models.sources import ADAPTER_FILES

CONFIG, WEIGHTS = ADAPTER_FILES
#: Settings of peft that make an update something else than scale B A of linear maps.
_UNLIKE_LORA = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save"),
    *("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters"),
    *("trainable_token_indices", "layers_to_transform", "alora_invocation_tokens"),
)
#: Those of them that say no more than the names of the matrices in the file do.
NAMED_ANYWAY = ("layers_to_transform",)
#: How a matrix is named: prefix, its place in the model, and which factor.
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
#: How the name of a matrix ends that a checkpoint of a training run, not peft, has saved.
_NAMED_ADAPTER = re.compile(r"\.lora_[AB]\.(?P<name>[^.]+)\.weight")


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds no adapter.

    Raises:
        UserError: Naming the file that is missing, cut off, or a Git LFS pointer.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            pickled = file == WEIGHTS and (folder / "adapter_model.bin").is_file()
            hint = " (its adapter_model.bin is a pickle, which is never loaded)" if pickled else ""
            raise UserError(f"{folder / file} is missing: expected an adapter folder of peft{hint}")
    refuse_pointer(folder / CONFIG)
    tensor_shapes(folder / WEIGHTS)


def read_settings(adapter: Path) -> dict[str, Any]:
    """What a folder's adapter_config.json says.

    Raises:
        UserError: It is a Git LFS pointer or no JSON object.
    """
    return read_json(adapter / CONFIG)


def write_settings(
    folder: Path, settings: Mapping[str, Any], *, targets: Iterable[str], base: str
) -> None:
    """Write adapter_config.json in one order.

    Targets are the linear maps that are updated: whole paths, or how a path ends. `base` is the
    hash of the weights that the adapter is for.
    """
    named = {"target_modules": sorted(targets), "base_model_name_or_path": base_name(base)}
    text = json.dumps({**settings, **named}, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def base_name(weights: str) -> str:
    """What an adapter calls the model whose weights have a hash."""
    return f"weights-{weights}"


def check_plain(settings: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA.

    Raises:
        ValueError: Naming the setting.
    """
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{CONFIG} says peft_type {settings.get('peft_type')}")
    if settings.get("bias", "none") != "none":
        raise ValueError(f"bias {settings['bias']} is not supported, only plain LoRA")
    unlike = [key for key in _UNLIKE_LORA if settings.get(key)]
    if unlike:
        raise ValueError(f"{unlike[0]} is not supported, only plain LoRA")
    for key in ("r", "lora_alpha"):
        if not isinstance(settings.get(key), int | float) or settings[key] <= 0:
            raise ValueError(f"{CONFIG} has {key} {settings.get(key)}, expected a number above 0")


def places_of(names: Iterable[str]) -> set[str]:
    """Which matrices an adapter updates, by the names of all tensors of its file.

    Raises:
        ValueError: A tensor is neither A nor B of a pair, or there are none; it says what it is.
    """
    held = set(names)
    places = {name.removesuffix(part) for name in held for part in (A, B) if name.endswith(part)}
    for name in sorted(held - {place + part for place in places for part in (A, B)}):
        raise ValueError(_kind_of(name))
    for place in sorted(places):
        missing = [part for part in (A, B) if place + part not in held]
        if missing:
            raise ValueError(f"{place + missing[0]} is missing, so A and B are not in pairs")
    if not places:
        raise ValueError("its file holds no matrices")
    return places


def _kind_of(name: str) -> str:
    """What a tensor is that is neither A nor B of a linear map."""
    named = _NAMED_ADAPTER.search(name)
    if named:
        return f"{name} names its adapter '{named['name']}': save it with peft's save_pretrained"
    if ".lora_embedding_" in name:
        return f"{name} is LoRA of the embeddings, not of a linear map"
    if ".lora_magnitude_vector" in name:
        return f"{name} is of DoRA, only plain LoRA is supported"
    if name.endswith((".lora_A.bias", ".lora_B.bias")):
        return f"{name} is a bias beside LoRA, only plain LoRA is supported"
    return f"it holds {name}, which is neither A nor B of LoRA"


def update_of(tensors: Mapping[str, Tensor], place: str) -> Tensor:
    """B A of one matrix, float32.

    Raises:
        ValueError: The two do not fit each other.
    """
    a, b = tensors[place + A].float(), tensors[place + B].float()
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(f"{place}: B is {[*b.shape]} and A {[*a.shape]}")
    return b @ a


def scale_of(settings: Mapping[str, Any]) -> float:
    """What B A is multiplied by: alpha / rank, or alpha / sqrt(rank) of rsLoRA."""
    rank = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def check_shape(model: nn.Module, place: str, update: Tensor) -> None:
    """Refuse an update that is not of the size of the matrix at its place.

    Raises:
        ValueError: Naming both sizes.
    """
    weight = model.get_submodule(place).get_parameter("weight")
    if weight.shape != update.shape:
        raise ValueError(f"{place}: {[*update.shape]} for {[*weight.shape]}")
