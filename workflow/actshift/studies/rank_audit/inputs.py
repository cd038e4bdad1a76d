"""What the rank audit reads: which prompts play which part, and aligned readers of their rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.engine.prompt_rows import PromptRows, fit_and_heldout
from actshift.engine.stores import CONDITIONS, PairStores, StreamReader
from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.vocab import ROLES, TEMPLATES, Role, Template


@dataclass(frozen=True, slots=True)
class ConceptPairs:
    """The two sides of one concept, pair by pair, in file order."""

    concept: str
    prompt_set: str
    sides: tuple[str, str]
    first: tuple[str, ...]
    second: tuple[str, ...]
    clusters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which prompts play which part; nothing but `heldout` ever holds a held-out prompt."""

    fit: dict[str, PromptRows]
    heldout: dict[str, PromptRows]
    concepts: tuple[ConceptPairs, ...]


def select(
    prompts: Mapping[str, Sequence[Prompt]], sets: Mapping[str, str], *, concepts: str
) -> Selection:
    """Sort the prompts into their parts.

    Args:
        prompts: Prompt sets by name, in file order.
        sets: Name of the prompt set of each condition; both may name one set.
        concepts: Name of the prompt set of paired concepts, which may be missing.

    Returns:
        Fit and held-out rows by condition, and the concept pairs of the split `fit`.

    Raises:
        UserError: A set or condition is missing, too small, or shares a cluster between fit and
            held-out; a concept pair is not a pair.
    """
    fit, heldout = fit_and_heldout(prompts, sets, fit=("fit",), heldout=("heldout",))
    return Selection(fit, heldout, _concepts(prompts.get(concepts, ()), concepts))


def required_streams(selection: Selection, *, control: str) -> list[tuple[str, Template]]:
    """The (prompt set, template) streams that both models of a pair must have, sorted.

    Args:
        selection: The prompts.
        control: Concept that is read in the chat template too, for the control contrast.
    """
    streams: set[tuple[str, Template]] = set()
    for name in CONDITIONS:
        for template in TEMPLATES:
            streams.add((selection.fit[name].prompt_set, template))
    for concept in selection.concepts:
        streams.add((concept.prompt_set, "raw"))
        if concept.concept == control:
            streams.add((concept.prompt_set, "chat"))
    return sorted(streams)


class AlignedStreams:
    """The streams of one pair, opened once, with equal prompts and layers on both sides."""

    def __init__(self, stores: PairStores, streams: Sequence[tuple[str, Template]]) -> None:
        """Open every stream of both roles and check that they line up.

        Raises:
            UserError: Depths differ, or two streams of one prompt set hold different prompts.
        """
        self._readers: dict[tuple[Role, str, Template], StreamReader] = {
            (role, prompt_set, template): stores.open(role, prompt_set, template)
            for prompt_set, template in streams
            for role in ROLES
        }
        self.layers = self._common_layers()
        first: dict[str, list[str]] = {}
        for (role, prompt_set, template), reader in self._readers.items():
            ids = [str(prompt_id) for prompt_id in reader.prompt_ids]
            if first.setdefault(prompt_set, ids) != ids:
                raise UserError(
                    f"rank_audit: stream {role} {prompt_set}.{template} holds other prompts than "
                    f"the other streams of '{prompt_set}'; extract them from one prompt file"
                )

    def has_window(self, positions: Sequence[int], prompt_sets: Collection[str]) -> bool:
        """Whether every stream of these prompt sets stores all these positions."""
        return all(
            set(positions) <= {int(position) for position in reader.positions}
            for (_, prompt_set, _), reader in self._readers.items()
            if prompt_set in prompt_sets
        )

    def read(
        self, layer: int, role: Role, template: Template, prompt_set: str, ids: Sequence[str]
    ) -> Float[np.ndarray, "prompt d_model"]:
        """Last prompt token of one layer, in the order of `ids`."""
        return self._readers[role, prompt_set, template].read(layer, -1, list(ids))

    def read_mean(
        self,
        layer: int,
        role: Role,
        template: Template,
        rows: PromptRows,
        positions: Sequence[int],
    ) -> Float[np.ndarray, "prompt d_model"]:
        """Mean over the positions a prompt has; absent positions count neither way."""
        reader = self._readers[role, rows.prompt_set, template]
        window, present = reader.read_window(layer, list(positions), list(rows.ids))
        total = np.where(present[..., None], window, 0.0).sum(axis=0, dtype=np.float64)
        return total / present.sum(axis=0)[:, None]

    def _common_layers(self) -> list[int]:
        depths = {key: [int(x) for x in r.layers] for key, r in self._readers.items()}
        (reference_key, reference), *rest = depths.items()
        for key, layers in rest:
            if layers != reference:
                raise UserError(
                    f"rank_audit: {' '.join(key)} has {len(layers)} layers, "
                    f"{' '.join(reference_key)} has {len(reference)}; "
                    "base and tuned must have the same depth"
                )
        return reference


def _concepts(rows: Sequence[Prompt], prompt_set: str) -> tuple[ConceptPairs, ...]:
    grouped: dict[str, dict[str, list[Prompt]]] = {}
    for row in rows:
        if row.pair is not None and row.split == "fit":
            grouped.setdefault(row.category, {}).setdefault(row.pair, []).append(row)
    return tuple(
        _concept(prompt_set, name, pairs) for name, pairs in grouped.items() if len(pairs) > 1
    )


def _concept(prompt_set: str, concept: str, pairs: Mapping[str, Sequence[Prompt]]) -> ConceptPairs:
    lead = next(iter(pairs.values()))[0].condition
    ordered: list[tuple[Prompt, Prompt]] = []
    for pair, members in pairs.items():
        ranked = sorted(members, key=lambda row: row.condition != lead)
        if len(ranked) != 2 or ranked[0].condition != lead or ranked[1].condition == lead:
            raise UserError(
                f"rank_audit: concept pair '{pair}' of '{prompt_set}' must have one '{lead}' row "
                "and one row of the other side, both in one split"
            )
        ordered.append((ranked[0], ranked[1]))
    return ConceptPairs(
        concept=concept,
        prompt_set=prompt_set,
        sides=(lead, ordered[0][1].condition),
        first=tuple(a.id for a, _ in ordered),
        second=tuple(b.id for _, b in ordered),
        clusters=tuple(a.cluster for a, _ in ordered),
    )
