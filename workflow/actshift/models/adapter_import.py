"""Taking over an adapter that was trained elsewhere."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from actshift.errors import UserError, one_line
from actshift.models.adapter_format import (
    NAMED_ANYWAY,
    PREFIX,
    WEIGHTS,
    A,
    B,
    base_name,
    check_folder,
    check_plain,
    check_shape,
    places_of,
    read_settings,
    update_of,
    write_settings,
)
from actshift.models.load import LoadedModel
from actshift.models.sources import LocalSource, parse_adapter

#: What models that also see call their language model, before its blocks.
_WRAPPING = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")
#: How peft ends the name of the embeddings or head that it saves whole beside the matrices.
_WHOLE = re.compile(r"(?:\.base_layer)?\.weight$")


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

    Args:
        source: A peft folder. What it calls its base is not looked at, since a name says nothing
            of weights, unless that is the hash of other weights.
        folder: To make.
        base: The model it is for: every matrix must have its place there.
        weights: Hash of that model's weights.

    Raises:
        UserError: No adapter, a pickled one, no plain LoRA, one of other weights, one with
            embeddings or a head of its own, or one that does not fit.
    """
    check_folder(source)
    settings = read_settings(source)
    try:
        check_plain({key: settings[key] for key in settings if key not in NAMED_ANYWAY})
        tensors = _without_copies(load_file(source / WEIGHTS), source, base)
        places = {place: _place_in(base.model, place) for place in places_of(tensors)}
        for place, module in places.items():
            check_shape(base.model, module, update_of(tensors, place))
        trained_on = str(settings.get("base_model_name_or_path"))
        if trained_on.startswith(base_name("")) and trained_on != base_name(weights):
            raise ValueError("it was trained on other weights")
    except (ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"cannot use the adapter in {source} ({one_line(error)}): expected plain LoRA of "
            f"linear maps of {base.name}, saved by peft"
        ) from error
    folder.mkdir()
    renamed = {
        f"{PREFIX}{module}{part}": tensors[place + part].contiguous()
        for place, module in places.items()
        for part in (A, B)
    }
    save_file(renamed, folder / WEIGHTS, metadata={"format": "pt"})
    plain = settings | dict.fromkeys((*NAMED_ANYWAY, "layers_pattern", "exclude_modules"))
    write_settings(folder, plain, targets=places.values(), base=weights)


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
            part = _WHOLE.sub("", name.removeprefix(PREFIX))
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
    named = place.removeprefix(PREFIX)
    yield from (named, _WRAPPING.sub("model.", named), _WRAPPING.sub("", named))


def _place_in(model: Any, place: str) -> str:
    """Where a matrix that an adapter names lies in a model.

    Raises:
        ValueError: There is no such linear map, or it is one with the embeddings.
    """
    named = place.removeprefix(PREFIX)
    modules = dict(model.named_modules())
    for candidate in _names_in(place):
        if not isinstance(modules.get(candidate), nn.Linear):
            continue
        # Its sum would change the embeddings too, which unmerged it does not.
        if modules[candidate].weight is model.get_input_embeddings().weight:
            raise ValueError(f"{named} has the weights of the embeddings, which would change too")
        return candidate
    raise ValueError(f"there is no linear map {named}")
