"""An in-memory pair whose shift matrices have a planted rank, direction and held-out structure."""

from collections.abc import Sequence

import numpy as np

from actshift.prompts.records import Prompt

CATEGORIES = ("poison", "theft")


def make_prompts(
    *, per_cluster: int = 4, fit: int = 10, select: int = 2, heldout: int = 5, pairs: int = 24
) -> dict[str, list[Prompt]]:
    """Harmful, harmless and paired concept prompts; `fit` and the others count clusters."""
    splits = ["fit"] * fit + ["select"] * select + ["heldout"] * heldout
    sets: dict[str, list[Prompt]] = {}
    for condition in ("harmful", "harmless"):
        sets[condition] = [
            Prompt(
                id=f"{condition}-{c:03d}-{i:02d}",
                text=f"{condition} {c} {i}",
                condition=condition,
                category=CATEGORIES[c % 2],
                cluster=f"{condition}-{c:03d}",
                split=split,
                source="synthetic",
            )
            for c, split in enumerate(splits)
            for i in range(per_cluster)
        ]
    sets["concepts"] = [
        Prompt(
            id=f"{side}-{p:03d}",
            text=f"{side} {p}",
            condition=side,
            category="question_statement",
            cluster=f"noun-{p // 3:03d}",
            split="fit",
            source="synthetic",
            pair=f"pair-{p:03d}",
        )
        for p in range(pairs)
        for side in ("question", "statement")
    ]
    return sets


class Stream:
    """The four members of an activation store that the audit uses."""

    def __init__(self, values: np.ndarray, ids: list[str], present: np.ndarray | None = None):
        self.values = values  # [layer, position, prompt, d_model]
        self.prompt_ids = ids
        self.asked: list[str] = []
        self.present = np.ones(values.shape[1:3], dtype=bool) if present is None else present

    @property
    def layers(self) -> np.ndarray:
        return np.arange(self.values.shape[0])

    @property
    def positions(self) -> np.ndarray:
        return np.arange(-self.values.shape[1], 0)

    def read(
        self, layer: int, position: int = -1, prompt_ids: Sequence[str] | None = None
    ) -> np.ndarray:
        return self.read_window(layer, [position], prompt_ids)[0][0]

    def read_window(
        self, layer: int, positions: Sequence[int], prompt_ids: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        ids = self.prompt_ids if prompt_ids is None else list(prompt_ids)
        self.asked += ids
        index = {name: i for i, name in enumerate(self.prompt_ids)}
        rows = [index[name] for name in ids]
        at = np.ix_([p + self.values.shape[1] for p in positions], rows)
        return self.values[layer][at], self.present[at]


class SyntheticPair:
    """Stores of one pair: tuned = base + planted shift; chat = raw + a template offset.

    Layer l, template matrix, harmful row i: sum_j z_ij s_j q_j, j < rank, plus `mean` * refusal.
    Harmless rows have the same rank-`rank` part and no mean. `naive` adds a template part of
    rank `template_rank` on top.
    """

    def __init__(
        self,
        prompts: dict[str, list[Prompt]],
        *,
        layers: int = 2,
        d_model: int = 48,
        positions: int = 1,
        rank: int = 3,
        template_rank: int = 9,
        mean: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.d_model, self.mean = d_model, mean
        frame, _ = np.linalg.qr(rng.normal(size=(d_model, rank + template_rank + 1)))
        self.refusal, self.shift_frame = frame[:, 0], frame[:, 1 : rank + 1]
        self.template_frame = frame[:, rank + 1 :]
        self.streams: dict[tuple[str, str, str], Stream] = {}
        for name, rows in prompts.items():
            ids = [row.id for row in rows]
            harmful = np.array([row.condition == "harmful" for row in rows], dtype=float)
            shape = (layers, positions, len(ids))
            base = rng.normal(size=(*shape, d_model))
            template = rng.normal(size=(*shape, template_rank)) @ self.template_frame.T
            shift = rng.normal(size=(*shape, rank)) @ self.shift_frame.T
            shift = shift + mean * harmful[:, None] * self.refusal
            for role in ("base", "tuned"):
                for kind in ("raw", "chat"):
                    values = base + (role == "tuned") * shift + (kind == "chat") * template
                    values = values + noise * rng.normal(size=values.shape)
                    self.streams[role, name, kind] = Stream(values.astype(np.float32), ids)

    def open(self, role: str, prompt_set: str, template: str) -> Stream:
        return self.streams[role, prompt_set, template]
