"""Choosing a refusal direction among candidates: three scores, three filters, one rule."""

from collections.abc import Sequence
from dataclasses import dataclass

from actshift.studies.refusal_direction.study import RefusalDirection


@dataclass(frozen=True, slots=True)
class Candidate:
    """A difference of means at one position and layer, with its scores on `select` prompts.

    Attributes:
        position: Token of the template after the instruction, negative from the end.
        layer: 0-based block whose input it was read from.
        bypass: Mean refusal log-odds of harmful prompts with it ablated everywhere, nats.
        induce: Mean refusal log-odds of harmless prompts with it added at its layer, nats.
        kl: Mean KL from the plain model of harmless prompts with it ablated, nats.
    """

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate, by its place in the list, and the filters it misses (none: passes)."""

    index: int
    missed: tuple[str, ...]


def missed_filters(
    candidate: Candidate, settings: RefusalDirection, *, n_layers: int
) -> tuple[str, ...]:
    """Names of the filters that a candidate misses: `kl`, `induce`, `layer`."""
    tests = {
        "kl": candidate.kl <= settings.max_kl,
        "induce": candidate.induce >= settings.min_induce,
        "layer": candidate.layer < int(settings.layer_share * n_layers),
    }
    return tuple(name for name, met in tests.items() if not met)


def choose(candidates: Sequence[Candidate], settings: RefusalDirection, *, n_layers: int) -> Choice:
    """The survivor with the lowest bypass score; without one, the least violating candidate.

    No filter is ever relaxed: a choice that misses some says which. Least violating is fewest
    filters missed, then the lowest bypass score; ties go to the earlier candidate.

    Args:
        candidates: All of them, at least one.
        settings: Holds the limits of the filters.
        n_layers: Blocks of the model.

    Raises:
        ValueError: There are no candidates.

    Source: Arditi et al. 2024 (arXiv 2406.11717), appendix C; the fallback is ours.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    missed = [missed_filters(c, settings, n_layers=n_layers) for c in candidates]
    index = min(range(len(candidates)), key=lambda i: (len(missed[i]), candidates[i].bypass, i))
    return Choice(index, missed[index])
