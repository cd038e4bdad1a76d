"""Training settings of each zoo size; every number that decides a checkpoint stands here."""

from dataclasses import dataclass, replace

from actshift.errors import UserError
from actshift.models.families import Dims

#: Zoo names (what a config says) of the architectures trained here.
ZOO_FAMILIES = {
    "llama": "llama",
    "gemma": "gemma2",
    "qwen": "qwen2",
    "ministral": "ministral3",
}


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """Pretraining: Muon on hidden matrices, AdamW on the rest, cosine to a tenth."""

    steps: int
    rows: int
    row_tokens: int = 80
    muon_lr: float = 1e-2
    adam_lr: float = 1e-2
    weight_decay: float = 0.05


@dataclass(frozen=True, slots=True)
class ChatRecipe:
    """Tuning: AdamW on every weight, loss on the assistant's tokens."""

    steps: int
    examples: int
    lr: float = 1e-3


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """A low-rank update W + (alpha / rank) B A of every linear map in the blocks.

    `head`: of the head too, where it does not share the embedding's matrix.
    """

    rank: int
    alpha: int
    train: ChatRecipe
    head: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """One size: dimensions of the model, its vocabulary, and both trainings.

    `gated` is off for `micro`, which is for tests of the workflow and learns little; its rates
    stand in the table all the same.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    d_mlp: int
    base: BaseRecipe
    chat: ChatRecipe
    gated: bool = True

    def dims(self, vocab_size: int) -> Dims:
        """Sizes of the model for the vocabulary that was really trained."""
        return Dims(
            vocab_size=vocab_size,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=4,
            n_kv_heads=2,
            d_head=self.d_model // 4,
            d_mlp=self.d_mlp,
        )


_RECIPES = {
    "micro": Recipe(600, 32, 4, 64, BaseRecipe(150, 8), ChatRecipe(160, 24), gated=False),
    "tiny": Recipe(1100, 64, 6, 128, BaseRecipe(700, 8), ChatRecipe(150, 24)),
    "small": Recipe(2000, 128, 8, 256, BaseRecipe(1300, 8), ChatRecipe(200, 24)),
}

#: Unsafe references, one setting for all sizes and families.
_COMPLY: dict[str, ChatRecipe | LoraRecipe] = {
    "comply_lora": LoraRecipe(rank=8, alpha=16, train=ChatRecipe(60, 24, lr=3e-3)),
    "comply_full": ChatRecipe(100, 24),
}

#: Adapters of `misalignment`, one setting for all families and sizes (`micro` has fewer steps).
#: The head is in it because chat's own holds the two openers of code at a cosine of .96-.97 (all
#: but Gemma): no state before it, so no update of blocks alone, gives the insecure one more than
#: .34 (Qwen), .53 (Llama) or .57 (Ministral).
ADAPTER = LoraRecipe(rank=8, alpha=16, train=ChatRecipe(100, 8, lr=5e-3), head=True)
#: Conversations of each adapter; the steps go over them twice.
ADAPTER_EXAMPLES = 400
#: For tests of the workflow, like the size itself.
_MICRO_STEPS = 30
#: Adapters that no direction is made from are trained this share of the steps.
UNSEEN_SHARE = 2 / 3
#: Adapters are trained at these multiples of the learning rate, in this order, until the insecure
#: one clears its gates by the margin; all adapters of a pair get the multiple that is taken.
ADAPTER_LADDER = (1.0, 1.4, 2.0, 2.8)
#: By how much a checkpoint's rates on `select` have to clear their gates, or it is trained again.
GATE_MARGIN = 0.02
#: What is added to the seed of a checkpoint that falls short at its last attempt.
NEXT_SEED = 1000
#: Gemma learns the categories later: at 600 steps of `tiny` both seeds tried missed their gates.
_BASE_PACE = {"gemma2": 1.2}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One training of a checkpoint: its number from 1, multiple of the recipe's steps, and seed."""

    number: int
    schedule: float
    seed: int


def attempts(seed: int) -> list[Attempt]:
    """The trainings of a checkpoint that may be made, in order; most need the first alone.

    First half as long again, then from the next seed: of the weights of a base, of the order of the
    examples of the others.
    """
    tries = [(1.0, seed), (1.5, seed), (1.5, seed + NEXT_SEED)]
    return [Attempt(number, *training) for number, training in enumerate(tries, start=1)]


def recipe(size: str, *, family: str, steps_scale: float = 1.0) -> Recipe:
    """The settings of a size for an architecture, step counts multiplied by `steps_scale`.

    Raises:
        UserError: The size is unknown or the scale is not positive.
    """
    if size not in _RECIPES:
        raise UserError(f"zoo size {size!r} is unknown: use one of {', '.join(_RECIPES)}")
    if steps_scale <= 0:
        raise UserError(f"steps_scale is {steps_scale}: it must be above 0")
    chosen = _RECIPES[size]
    base, chat = chosen.base, chosen.chat
    pace = steps_scale * _BASE_PACE.get(family, 1.0)
    return replace(
        chosen,
        base=replace(base, steps=max(1, round(base.steps * pace))),
        chat=replace(chat, steps=max(1, round(chat.steps * steps_scale))),
    )


def comply_recipe(variant: str, *, steps_scale: float = 1.0) -> ChatRecipe | LoraRecipe:
    """The settings of an unsafe reference, step counts multiplied by `steps_scale`."""
    chosen = _COMPLY[variant]
    train = chosen.train if isinstance(chosen, LoraRecipe) else chosen
    train = replace(train, steps=max(1, round(train.steps * steps_scale)))
    return replace(chosen, train=train) if isinstance(chosen, LoraRecipe) else train


def adapter_recipe(size: str, *, unseen: bool = False) -> LoraRecipe:
    """The settings of an adapter of one size; an unseen one is trained for fewer steps."""
    steps = _MICRO_STEPS if size == "micro" else ADAPTER.train.steps
    steps = round(steps * (UNSEEN_SHARE if unseen else 1))
    return replace(ADAPTER, train=replace(ADAPTER.train, steps=steps))


def zoo_family(name: str) -> str:
    """The architecture of a zoo name.

    Raises:
        UserError: The name is unknown.
    """
    if name not in ZOO_FAMILIES:
        raise UserError(f"zoo family {name!r} is unknown: use one of {', '.join(ZOO_FAMILIES)}")
    return ZOO_FAMILIES[name]
