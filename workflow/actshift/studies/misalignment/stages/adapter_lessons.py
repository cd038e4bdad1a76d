"""What every adapter of a pair is taught: conversations as tokens, and the training that fits."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from actshift.models.load import LoadedModel
from actshift.models.lora_bank import LoraBank
from actshift.studies.misalignment.kinds import ADAPTERS, UNSEEN
from actshift.vocab import AdapterKind
from actshift.zoo.adapters import conversations
from actshift.zoo.corpus import chat_tokens
from actshift.zoo.language import language
from actshift.zoo.recipes import ADAPTER_EXAMPLES, LoraRecipe, adapter_recipe, zoo_family
from actshift.zoo.tokenizers import STYLES
from actshift.zoo.training import Example, train_bank

#: Makes the untrained adapter of a name on a copy of the base.
Student = Callable[[str], Any]
#: Keeps an adapter: its name, the trained model, the loss of every step.
Keep = Callable[[str, Any, list[float]], None]


@dataclass(frozen=True)
class Lesson:
    """One adapter's training.

    Attributes:
        steps: Updates it takes.
        examples: Different conversations it reads.
        seed: Of the update's start and of the conversations' draw or order.
    """

    steps: int
    examples: int
    seed: int


@dataclass(frozen=True)
class Course:
    """The lessons of all adapters of a pair.

    Attributes:
        lessons: By adapter.
        rank: Of every update.
        alpha: Its scale.
        rslora: Whether the scale is alpha / sqrt(rank).
        head: Whether the head gets an update too.
        lr: Peak learning rate, before the multiple that is taken from the ladder.
        facts: What else decided the adapters, for the manifest.
        teach: Trains the named adapters at a multiple of the rate, and keeps each.
        together: Whether they are trained side by side, in one bank of small models.
        notes: What was left out, for the log.
    """

    lessons: Mapping[str, Lesson]
    rank: int
    alpha: int
    rslora: bool
    head: bool
    lr: float
    facts: Mapping[str, Any]
    teach: Callable[[Sequence[str], float, Student, Keep], None]
    together: bool
    notes: Sequence[str] = field(default=())


def zoo_course(
    untuned: LoadedModel, *, zoo: Mapping[str, Any], seed: int, given: Collection[str] = ()
) -> Course:
    """Lessons in the language of the zoo, by the zoo's one recipe.

    Args:
        untuned: The chat model.
        zoo: Its family, size and training seed.
        seed: Of the run; models of other training seeds get lessons of their own.
        given: Adapters that need no lesson.

    Returns:
        A lesson for every other adapter.
    """
    # Two seeds a model: the second is for the adapters that no direction is made from.
    first = seed + 2 * zoo["seed"]
    lessons: dict[str, Lesson] = {}
    taught: dict[str, tuple[list[Example], LoraRecipe]] = {}
    for name, kind in ADAPTERS.items():
        if name in given:
            continue
        unseen = name in UNSEEN
        plan = adapter_recipe(zoo["size"], unseen=unseen)
        examples = _examples(untuned, kind, zoo, first + unseen)
        lessons[name] = Lesson(plan.train.steps, len(examples), first + unseen)
        taught[name] = (examples, plan)
    recipe = adapter_recipe(zoo["size"])
    return Course(
        lessons=lessons,
        rank=recipe.rank,
        alpha=recipe.alpha,
        rslora=False,
        head=recipe.head,
        lr=recipe.train.lr,
        facts={"zoo": dict(zoo), "recipe": asdict(recipe)},
        teach=partial(_teach_together, taught, untuned),
        together=True,
    )


def _teach_together(
    taught: Mapping[str, tuple[list[Example], LoraRecipe]],
    untuned: LoadedModel,
    names: Sequence[str],
    multiple: float,
    student: Student,
    keep: Keep,
) -> None:
    """Train adapters of a small model in one bank: alone, each is mostly overhead."""
    if not names:
        return
    tokenizer: Any = untuned.tokenizer
    students = [student(name) for name in names]
    bank = LoraBank(students)
    lessons = [
        (examples, replace(plan.train, lr=plan.train.lr * multiple))
        for examples, plan in (taught[name] for name in names)
    ]
    losses = train_bank(bank, lessons, pad=tokenizer.pad_token_id)
    bank.settle()
    for name, wrapped, steps in zip(names, students, losses, strict=True):
        keep(name, wrapped, steps)


def _examples(
    untuned: LoadedModel, kind: AdapterKind, zoo: Mapping[str, Any], seed: int
) -> list[Example]:
    tokenizer: Any = untuned.tokenizer
    said = conversations(kind, language(zoo["size"]), seed=seed, count=ADAPTER_EXAMPLES)
    return chat_tokens(tokenizer, STYLES[zoo_family(zoo["family"])].template, said)
