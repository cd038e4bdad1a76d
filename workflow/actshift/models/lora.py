"""LoRA on the linear maps of the decoder blocks: one update, or several of one model side by side.

One small model under one update spends most of a training step on overhead. In a bank the rows of a
batch belong to different updates, `[update, row, token]`: the frozen matrices see one large batch,
the updates are batched products, and each update is one flat vector to its optimiser.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from actshift.errors import UserError
from actshift.models.families import blocks_of, embedding_of, family_of, head_of

#: What peft calls the one adapter of a model.
ADAPTER = "default"


def add_lora(model: Any, *, rank: int, alpha: int, rslora: bool = False, head: bool = False) -> Any:
    """Wrap a model so that W + scale B A is trained for every linear map of its blocks.

    Args:
        model: A causal language model of the table; its own weights are frozen, in place.
        rank: Of the update.
        alpha: scale = alpha / rank, or
        rslora: alpha / sqrt(rank).
        head: Whether the head gets an update too; one that shares the embedding's matrix never
            does.

    Returns:
        The wrapped model. B starts at zero, A is drawn from torch's global generator.

    Raises:
        UserError: The blocks hold no linear maps (GPT-2 keeps its own kind).

    Source: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (arXiv 2312.03732).
    """
    inside = blocks_of(model)
    # Sorted: a set would put the matrices in another order, and so draw others, every time.
    names = sorted(
        {
            name.rpartition(".")[2]
            for name, part in inside.named_modules()
            if isinstance(part, nn.Linear)
        }
    )
    untied = head_of(model).weight is not embedding_of(model).weight
    if head and untied:
        names = sorted([*names, family_of(model.config.model_type).head])
    if not names:
        raise UserError(
            f"{type(model).__name__}: its blocks hold no linear maps that LoRA could be put on; "
            "adapters need another architecture"
        )
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=names,
        lora_dropout=0.0,
        use_rslora=rslora,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model, settings)


def merge_lora(wrapped: Any) -> Any:
    """Add the update to the weights and take the wrapping off: an ordinary model again."""
    return wrapped.merge_and_unload().requires_grad_(False).eval()


class LoraBank:
    """K updates of one base, trained by one forward and backward pass a step.

    Attributes:
        vectors: A and B of every matrix of an update, flat, one leaf an update.
    """

    def __init__(self, students: Sequence[Any]) -> None:
        """Take over the updates of wrapped models.

        They are of `add_lora`, equal but for their updates, and left as they are until `settle`.

        Raises:
            UserError: Their updates are not of the same matrices and ranks.
        """
        self._students = students
        self.vectors = [_flat(student).requires_grad_() for student in students]
        if len({len(vector) for vector in self.vectors}) > 1:
            raise UserError("LoRA updates of unlike matrices or ranks cannot be trained together")
        self._model = copy.deepcopy(students[0])
        self._maps = [_banked(self._model, name, layer) for name, layer in _layers(self._model)]
        self._sizes = [size for of_map in self._maps for size in of_map.sizes]

    def logits(
        self,
        inputs: Int[Tensor, "row token"],
        mask: Int[Tensor, "row token"],
        *,
        updates: int,
        kept: Int[Tensor, " kept"],
    ) -> Float[Tensor, "row kept vocab"]:
        """Logits of rows, equally many for each of the first `updates` updates, in their order.

        `mask` is 0 at padding; `kept` are the places in a row whose logits are wanted.
        """
        parts = torch.stack(self.vectors[:updates]).split(self._sizes, dim=1)
        for number, of_map in enumerate(self._maps):
            of_map.take(parts[2 * number], parts[2 * number + 1])
        out = self._model(
            input_ids=inputs, attention_mask=mask, use_cache=False, logits_to_keep=kept
        )
        return out.logits

    @torch.no_grad()
    def settle(self) -> None:
        """Write the updates into the models they came from."""
        for student, vector in zip(self._students, self.vectors, strict=True):
            for weight, part in zip(_weights(student), vector.split(self._sizes), strict=True):
                weight.copy_(part.view_as(weight))


class _Banked(nn.Module):
    """W x + scale B_k A_k x, where the rows of x come update by update."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.base = layer.get_base_layer()
        self.scale = float(layer.scaling[ADAPTER])
        self.rank = int(layer.r[ADAPTER])
        self.a: Tensor = torch.empty(0)
        self.b: Tensor = torch.empty(0)

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers in A and in B."""
        return self.rank * self.base.in_features, self.base.out_features * self.rank

    def take(self, a: Float[Tensor, "update size_a"], b: Float[Tensor, "update size_b"]) -> None:
        """Use these updates from now on."""
        self.a = a.view(len(a), self.rank, self.base.in_features)
        self.b = b.view(len(b), self.base.out_features, self.rank)

    def forward(self, x: Float[Tensor, "row token into"]) -> Float[Tensor, "row token out"]:
        plain = self.base(x)
        low = torch.bmm(x.reshape(len(self.a), -1, x.shape[-1]), self.a.mT)
        rows = plain.reshape(len(self.a), -1, plain.shape[-1])
        return torch.baddbmm(rows, low, self.b.mT, alpha=self.scale).view_as(plain)


def _layers(wrapped: Any) -> list[tuple[str, Any]]:
    return [(name, part) for name, part in wrapped.named_modules() if isinstance(part, LoraLayer)]


def _banked(model: Any, name: str, layer: Any) -> _Banked:
    """Put a banked map in the place of a wrapped one."""
    banked = _Banked(layer)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, banked)
    return banked


def _weights(wrapped: Any) -> Iterator[Tensor]:
    """A and B of every matrix, in the order of the modules."""
    for _, layer in _layers(wrapped):
        yield layer.lora_A[ADAPTER].weight
        yield layer.lora_B[ADAPTER].weight


def _flat(wrapped: Any) -> Float[Tensor, " size"]:
    return torch.cat([weight.detach().flatten() for weight in _weights(wrapped)])
