"""LoRA adapters as folders in peft's format: save, identify, measure, merge on load, take over.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. The base is named by the hash
of its weights, never by a path: a folder may move, and another base is noticed.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig

from actshift.errors import UserError, one_line, refusal_of
from actshift.models.files import read_json, refuse_pointer, tensor_shapes
from actshift.models.load import Device, Dtype, LoadedModel, load_model, resolve_device, wrap_model
from actshift.models.sources import ADAPTER_FILES, LocalSource, parse_adapter

CONFIG, WEIGHTS = ADAPTER_FILES
#: Settings of peft that make an update something else than scale B A of linear maps.
_UNLIKE_LORA = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save"),
    *("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters"),
    *("trainable_token_indices", "layers_to_transform", "alora_invocation_tokens"),
)
#: Those of them that say no more than the names of the matrices in the file do.
_NAMED_ANYWAY = ("layers_to_transform",)
#: How a matrix is named: prefix, its place in the model, and which factor.
_PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
#: How the name of a matrix ends that a checkpoint of a training run, not peft, has saved.
_NAMED_ADAPTER = re.compile(r"\.lora_[AB]\.(?P<name>[^.]+)\.weight")
#: What models that also see call their language model, before its blocks.
_WRAPPING = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")
#: How peft ends the name of the embeddings or head that it saves whole beside the matrices.
_WHOLE = re.compile(r"(?:\.base_layer)?\.weight$")


def _check_folder(folder: Path) -> None:
    """Refuse a folder that lacks an adapter's file, or has one cut off or as a Git LFS pointer."""
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            pickled = file == WEIGHTS and (folder / "adapter_model.bin").is_file()
            hint = " (its adapter_model.bin is a pickle, which is never loaded)" if pickled else ""
            raise UserError(f"{folder / file} is missing: expected an adapter folder of peft{hint}")
    refuse_pointer(folder / CONFIG)
    tensor_shapes(folder / WEIGHTS)


def _settings_of(adapter: Path) -> dict[str, Any]:
    return read_json(adapter / CONFIG)


def _write_settings(
    folder: Path, settings: Mapping[str, Any], *, targets: Iterable[str], base: str
) -> None:
    """Write adapter_config.json in one order.

    Targets are the linear maps that are updated: whole paths, or how a path ends. `base` is the
    hash of the weights that the adapter is for.
    """
    named = {"target_modules": sorted(targets), "base_model_name_or_path": _base_name(base)}
    text = json.dumps({**settings, **named}, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _base_name(weights: str) -> str:
    """What an adapter calls the model whose weights have a hash."""
    return f"weights-{weights}"


def _check_plain(settings: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA by a ValueError that names the setting."""
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


def _places_of(names: Iterable[str]) -> set[str]:
    """Which matrices an adapter updates, by the names of all tensors of its file.

    A ValueError names a tensor that is neither A nor B of a pair, or says that there are none.
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


def _update_of(tensors: Mapping[str, Tensor], place: str) -> Tensor:
    """B A of one matrix, float32; a ValueError if they do not fit each other."""
    a, b = tensors[place + A].float(), tensors[place + B].float()
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(f"{place}: B is {[*b.shape]} and A {[*a.shape]}")
    return b @ a


def _scale_of(settings: Mapping[str, Any]) -> float:
    """What B A is multiplied by: alpha / rank, or alpha / sqrt(rank) of rsLoRA."""
    rank = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _weight_at(model: nn.Module, place: str, update: Tensor) -> nn.Parameter:
    """The matrix at a place of a model; a ValueError if the update is of another size."""
    weight = model.get_submodule(place).get_parameter("weight")
    if weight.shape != update.shape:
        raise ValueError(f"{place}: {[*update.shape]} for {[*weight.shape]}")
    return weight


def save_adapter(wrapped: Any, folder: Path, *, base: str) -> None:
    """Save what was trained as a peft folder whose bytes depend on the training alone.

    `wrapped` is of `add_lora`, `folder` lies inside one that is published whole, and `base` is the
    hash of the weights that the adapter was trained on (`io.manifest.weights_hash`).
    """
    # peft asks the hub about embeddings otherwise, and these adapters never hold any.
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    settings = _settings_of(folder)
    # A set in memory: its order changes from process to process.
    _write_settings(folder, settings, targets=settings["target_modules"], base=base)


def adapter_hash(folder: Path) -> str:
    """Hash of an adapter: its weights, its settings and (by name) the weights of its base.

    Raises:
        UserError: The folder holds no adapter.
    """
    _check_folder(folder)
    files = (hashlib.sha256((folder / name).read_bytes()) for name in (CONFIG, WEIGHTS))
    return _joined(*(file.hexdigest() for file in files))


def adapter_size(folder: Path) -> tuple[int, float]:
    """(rank, alpha) of an adapter."""
    settings = _settings_of(folder)
    return settings["r"], float(settings["lora_alpha"])


def merged_hash(checkpoint: Path, adapter: Path) -> str:
    """Hash of a base with an adapter in it: under another base it is another model."""
    return _joined(_weights_hash(checkpoint), adapter_hash(adapter))


def load_merged(
    checkpoint: Path, adapter: Path, *, name: str, dtype: Dtype = "auto", device: Device = "auto"
) -> LoadedModel:
    """Load a base and add an adapter to its weights: W + scale B A, summed in float32.

    Nothing but the two folders is read, and peft is not imported: its own loader would follow the
    base's name to a hub, and takes longer to import than a small model to load. `dtype` is that of
    the forward pass, after merging; `auto` is the checkpoint's own. Merging is done on the CPU, so
    that bits do not depend on the device.

    Raises:
        UserError: The folder holds no adapter, one of another base, or one that does not fit.
    """
    target = resolve_device(device)
    _check_base(checkpoint, adapter, name)
    loaded = load_model(checkpoint, name=name, dtype="float32", device="cpu")
    model: Any = loaded.model
    _add(model, adapter, name)
    # A checkpoint that names no dtype is float32.
    config: Any = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    stated = config.dtype or torch.float32
    nn.Module.to(model, target, stated if dtype == "auto" else getattr(torch, dtype))
    return wrap_model(model.eval(), loaded.tokenizer, name=name)


def delta_norm(adapter: Path, base: LoadedModel) -> tuple[float, float]:
    """How far an adapter moves the weights.

    ‖ΔW‖ = (Σ_m ‖scale_m B_m A_m‖_F²)^½ over the adapted matrices m; the share divides by
    (Σ_m ‖W_m‖_F²)^½ of the same matrices. The base is not quantised.

    Returns:
        (norm, share of the norm of those weights).
    """
    scale = _scale_of(_settings_of(adapter))
    tensors = load_file(adapter / WEIGHTS)
    moved = whole = 0.0
    for key in sorted(name for name in tensors if name.endswith(A)):
        place = key.removesuffix(A)
        a, b = tensors[key].double(), tensors[place + B].double()
        # ‖BA‖² = tr(BᵀB AAᵀ): rank x rank, never the whole matrix.
        moved += scale**2 * float(((b.T @ b) * (a @ a.T)).sum())
        weight = base.model.get_submodule(place.removeprefix(_PREFIX)).get_parameter("weight")
        whole += float(weight.double().square().sum())
    return math.sqrt(moved), math.sqrt(moved / whole)


@torch.no_grad()
def _add(model: Any, adapter: Path, name: str) -> None:
    """Add an adapter to a model's own weights, matrix by matrix.

    Raises:
        UserError: It is no plain LoRA, or a matrix has no place or a wrong shape.
    """
    settings = _settings_of(adapter)
    try:
        _check_plain(settings)
        tensors = load_file(adapter / WEIGHTS)
        places = _places_of(tensors)
        updates = {place.removeprefix(_PREFIX): _update_of(tensors, place) for place in places}
        if set(updates) != _targets(model, settings["target_modules"]):
            raise ValueError("its matrices are not all those of target_modules")
        for place, update in sorted(updates.items()):
            weight = _weight_at(model, place, update)
            weight += update * _scale_of(settings)
    except (ValueError, KeyError, AttributeError, SafetensorError) as error:
        if refusal_of(error) is not None:
            raise
        raise UserError(
            f"{name}: cannot add the adapter in {adapter} ({one_line(error)}); delete this "
            "folder of the run and run the same command again"
        ) from error


def _targets(model: nn.Module, names: Sequence[str]) -> set[str]:
    """Places of all linear maps that some names stand for: whole paths, or how a path ends."""
    ends = tuple(f".{name}" for name in names)
    linear = (place for place, part in model.named_modules() if isinstance(part, nn.Linear))
    return {place for place in linear if place in names or place.endswith(ends)}


def _joined(*hashes: str) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _weights_hash(checkpoint: Path) -> str:
    """What the checkpoint's manifest says (`io.manifest`, which stands beside this package)."""
    path = checkpoint / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["facts"]["weights_hash"]
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{path}: names no hash of weights, so no adapter can be told to fit; run the rule "
            "checkpoint again"
        ) from None


def _check_base(checkpoint: Path, adapter: Path, name: str) -> None:
    _check_folder(adapter)
    settings = _settings_of(adapter)
    if settings.get("base_model_name_or_path") != _base_name(_weights_hash(checkpoint)):
        raise UserError(
            f"{name}: the adapter in {adapter} was trained on other weights than those in "
            f"{checkpoint}; train it again on this model"
        )


@dataclass(frozen=True)
class GivenAdapter:
    """An adapter that exists, and what identifies it without a path of this machine."""

    folder: Path
    facts: dict[str, Any]


@contextmanager
def named(key: str) -> Iterator[None]:
    """Put the config key in front of an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def locate(source: str, revision: str | None, *, key: str) -> GivenAdapter:
    """Find an adapter on this disk or bring it here from the hub.

    Raises:
        UserError: Neither a folder nor a hub id, or the hub does not give it; names the config key.
    """
    with named(key):
        place = parse_adapter(source, revision=revision)
        if isinstance(place, LocalSource):
            return GivenAdapter(place.folder, {"source": place.folder.name, "revision": None})
        # Only here: the hub library costs a second that local folders need not pay.
        from actshift.models.hub import fetch

        folder, commit = fetch(place.repo_id, place.revision)
        return GivenAdapter(folder, {"source": place.repo_id, "revision": commit})


def import_adapter(source: Path, folder: Path, *, base: LoadedModel, weights: str) -> None:
    """Copy an adapter that was trained elsewhere as a folder that `save_adapter` could have made.

    What the source calls its base is not looked at, since a name says nothing of weights, unless it
    is the hash of other weights than `weights`, those of `base`.

    Raises:
        UserError: No adapter, a pickled one, no plain LoRA, one of other weights, one with
            embeddings or a head of its own, or one that does not fit.
    """
    _check_folder(source)
    settings = _settings_of(source)
    try:
        _check_plain({key: settings[key] for key in settings if key not in _NAMED_ANYWAY})
        tensors = _without_copies(load_file(source / WEIGHTS), source, base)
        places = {place: _place_in(base.model, place) for place in _places_of(tensors)}
        for place, module in places.items():
            _weight_at(base.model, module, _update_of(tensors, place))
        trained_on = str(settings.get("base_model_name_or_path"))
        if trained_on.startswith(_base_name("")) and trained_on != _base_name(weights):
            raise ValueError("it was trained on other weights")
    except (ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"cannot use the adapter in {source} ({one_line(error)}): expected plain LoRA of "
            f"linear maps of {base.name}, saved by peft"
        ) from error
    folder.mkdir()
    renamed = {
        f"{_PREFIX}{module}{part}": tensors[place + part].contiguous()
        for place, module in places.items()
        for part in (A, B)
    }
    save_file(renamed, folder / WEIGHTS, metadata={"format": "pt"})
    plain = settings | dict.fromkeys((*_NAMED_ANYWAY, "layers_pattern", "exclude_modules"))
    _write_settings(folder, plain, targets=places.values(), base=weights)


def _without_copies(
    tensors: dict[str, Tensor], source: Path, base: LoadedModel
) -> dict[str, Tensor]:
    """What an adapter's file holds beside copies of the base's own embeddings and head.

    peft saves both whole where they are adapted, or where it cannot tell that they were left alone.

    Raises:
        UserError: They are not the base's.
    """
    changes = {}
    for name, value in tensors.items():
        module = _embeddings_or_head(base.model, name)
        if module is None:
            changes[name] = value
            continue
        weight = module.get_parameter("weight")
        if value.shape != weight.shape or not _is_copy(value, weight):
            part = _WHOLE.sub("", name.removeprefix(_PREFIX))
            raise UserError(
                f"cannot use the adapter in {source}: it holds weights of its own for {part} "
                f"({[*value.shape]}, {base.name} has {[*weight.shape]}); merge it into the base "
                "with peft and give the folder of the merged model"
            )
    return changes


def _embeddings_or_head(model: Any, name: str) -> nn.Module | None:
    """The embeddings or the head of a model, where a tensor's name stands for one of them whole."""
    if name.endswith((A, B)) or not _WHOLE.search(name):
        return None
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    modules = dict(model.named_modules())
    candidates = (modules.get(place) for place in _names_in(_WHOLE.sub("", name)))
    return next((m for m in candidates if m is not None and any(m is end for end in ends)), None)


def _is_copy(value: Tensor, weight: Tensor) -> bool:
    """Whether two matrices are one, but for the rounding of the coarser dtype."""
    return value.to(weight.dtype).equal(weight) or value.equal(weight.to(value.dtype))


def _names_in(place: str) -> Iterator[str]:
    """What a model may call a module that an adapter names."""
    named = place.removeprefix(_PREFIX)
    yield from (named, _WRAPPING.sub("model.", named), _WRAPPING.sub("", named))


def _place_in(model: Any, place: str) -> str:
    """Where a matrix that an adapter names lies in a model.

    Raises:
        ValueError: There is no such linear map, or it is one with the embeddings.
    """
    named = place.removeprefix(_PREFIX)
    modules = dict(model.named_modules())
    for candidate in _names_in(place):
        if not isinstance(modules.get(candidate), nn.Linear):
            continue
        # Its sum would change the embeddings too, which unmerged it does not.
        if modules[candidate].weight is model.get_input_embeddings().weight:
            raise ValueError(f"{named} has the weights of the embeddings, which would change too")
        return candidate
    raise ValueError(f"there is no linear map {named}")
