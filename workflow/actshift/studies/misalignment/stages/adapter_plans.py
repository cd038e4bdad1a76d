"""How the adapters of a pair are trained; those of zoo models by the recipe of the zoo."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from actshift.models.load import LoadedModel
from actshift.models.lora import LoraBank
from actshift.studies.misalignment.kinds import ADAPTERS, UNSEEN
from actshift.vocab import AdapterKind
from actshift.zoo.documents import conversations
from actshift.zoo.language import language
from actshift.zoo.recipes import ADAPTER_EXAMPLES, LoraRecipe, adapter_recipe, zoo_family
from actshift.zoo.tokenizers import STYLES
from actshift.zoo.training import Example, chat_tokens, train_bank

#: Makes the untrained adapter of a name on a copy of the base.
MakeUntrained = Callable[[str], Any]
#: Stores an adapter: its name, the trained model, the loss of every step.
Store = Callable[[str, Any, list[float]], None]


@dataclass(frozen=True)
class AdapterPlan:
    """The training of one adapter.

    Attributes:
        steps: Updates it takes.
        examples: Different conversations it reads.
        seed: Of the update's start and of the conversations' draw or order.
    """

    steps: int
    examples: int
    seed: int


@dataclass(frozen=True)
class TrainingPlan:
    """The training of all adapters of a pair.

    Attributes:
        adapters: The training of each, by name.
        rank: Of every update.
        alpha: Its scale.
        rslora: Whether the scale is alpha / sqrt(rank).
        head: Whether the head gets an update too.
        lr: Peak learning rate, before the multiple that is taken from the ladder.
        facts: What else decided the adapters, for the manifest.
        train: Trains the named adapters at a multiple of the rate, and stores each.
        together: Whether they are trained side by side, in one bank of small models.
        notes: What was left out, for the log.
    """

    adapters: Mapping[str, AdapterPlan]
    rank: int
    alpha: int
    rslora: bool
    head: bool
    lr: float
    facts: Mapping[str, Any]
    train: Callable[[Sequence[str], float, MakeUntrained, Store], None]
    together: bool
    notes: Sequence[str] = field(default=())


def zoo_plan(
    untuned: LoadedModel, *, zoo: Mapping[str, Any], seed: int, given: Collection[str] = ()
) -> TrainingPlan:
    """Conversations in the language of the zoo, by the zoo's one recipe.

    Args:
        untuned: The chat model.
        zoo: Its family, size and training seed.
        seed: Of the run; models of other training seeds get other conversations.
        given: Adapters that are not trained.

    Returns:
        A plan for every other adapter.
    """
    # Two seeds a model: the second is for the adapters that no direction is made from.
    first = seed + 2 * zoo["seed"]
    adapters: dict[str, AdapterPlan] = {}
    inputs: dict[str, tuple[list[Example], LoraRecipe]] = {}
    for name, kind in ADAPTERS.items():
        if name in given:
            continue
        unseen = name in UNSEEN
        recipe = adapter_recipe(zoo["size"], unseen=unseen)
        examples = _examples(untuned, kind, zoo, first + unseen)
        adapters[name] = AdapterPlan(recipe.train.steps, len(examples), first + unseen)
        inputs[name] = (examples, recipe)
    recipe = adapter_recipe(zoo["size"])
    return TrainingPlan(
        adapters=adapters,
        rank=recipe.rank,
        alpha=recipe.alpha,
        rslora=False,
        head=recipe.head,
        lr=recipe.train.lr,
        facts={"zoo": dict(zoo), "recipe": asdict(recipe)},
        train=partial(_train_together, inputs, untuned),
        together=True,
    )


def _train_together(
    inputs: Mapping[str, tuple[list[Example], LoraRecipe]],
    untuned: LoadedModel,
    names: Sequence[str],
    multiple: float,
    untrained: MakeUntrained,
    store: Store,
) -> None:
    """Train adapters of a small model in one bank: alone, each is mostly overhead."""
    if not names:
        return
    tokenizer: Any = untuned.tokenizer
    models = [untrained(name) for name in names]
    bank = LoraBank(models)
    trainings = [
        (examples, replace(recipe.train, lr=recipe.train.lr * multiple))
        for examples, recipe in (inputs[name] for name in names)
    ]
    losses = train_bank(bank, trainings, pad=tokenizer.pad_token_id)
    bank.settle()
    for name, model, steps in zip(names, models, losses, strict=True):
        store(name, model, steps)


def _examples(
    untuned: LoadedModel, kind: AdapterKind, zoo: Mapping[str, Any], seed: int
) -> list[Example]:
    tokenizer: Any = untuned.tokenizer
    texts = conversations(kind, language(zoo["size"]), seed=seed, count=ADAPTER_EXAMPLES)
    return chat_tokens(tokenizer, STYLES[zoo_family(zoo["family"])].template, texts)
