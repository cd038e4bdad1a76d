"""Ranks of ordinary concept differences, as published (n = 50) and at the template matrix's n."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.resampling import (
    cluster_orders,
    nested_orders,
    prefix_membership,
    shifted_range,
)
from actshift.maths.spectrum import ResampledRanks, rank_eps, spectrum
from actshift.random_streams import AUDIT_RESAMPLES
from actshift.studies.rank_audit.layer import AlignedStreams, ConceptPairs, LayerData, concept_rows
from actshift.studies.rank_audit.study import RankAudit
from actshift.studies.rank_audit.tables import finite_mean, log_ratio
from actshift.vocab import ROLES

Row = dict[str, object]


class ConceptDraws:
    """Subset draws of one set of rows: prompt by prompt, and cluster by cluster."""

    def __init__(
        self, clusters: tuple[str, ...], settings: RankAudit, *, seed: int, stream: int
    ) -> None:
        """Draw once; every layer and role reuses the orders."""
        nested, grouped = (AUDIT_RESAMPLES.rng(seed, stream, p) for p in (3, 4))
        self.nested = nested_orders(len(clusters), draws=settings.n_sweep_draws, rng=nested)
        self.grouped = cluster_orders(clusters, draws=settings.half_sample_draws, rng=grouped)


def concept_baseline_rows(
    streams: AlignedStreams,
    data: LayerData,
    draws: Mapping[str, ConceptDraws],
    concepts: tuple[ConceptPairs, ...],
    settings: RankAudit,
) -> list[Row]:
    """Both comparisons for every concept and role of one layer.

    `draws` are by concept name, and `template` for the template matrix on harmful prompts. Two rows
    a (role, concept): `matched` false (as published) and true.
    """
    rows: list[Row] = []
    template = data.fitted["template", "harmful"]
    for concept in concepts:
        for role in ROLES:
            differences = concept_rows(
                streams, concept, layer=data.layer, role=role, template="raw"
            )
            key: Row = {"role": role, "concept": concept.concept, "layer": data.layer}
            published = _as_published(differences[: settings.concept_n], settings)
            published["rank_template"] = rank_eps(template.plain.values, settings.eps)
            published["n_template"] = len(template.prompts.ids)
            rows.append({**key, **published})
            matched = _matched(
                _Sampled(differences, draws[concept.concept], ResampledRanks(differences)),
                _Sampled(template.shift.rows, draws["template"], template.resampled),
                settings,
            )
            rows.append({**key, **matched})
    return rows


class _Sampled:
    """Rows with their draws and their resampled ranks."""

    def __init__(
        self,
        rows: Float[np.ndarray, "prompt d_model"],
        draws: ConceptDraws,
        resampled: ResampledRanks,
    ) -> None:
        self.rows, self.draws, self.resampled = rows, draws, resampled

    def mean_rank(self, n: int, eps: float, *, centered: bool = False) -> float:
        """Mean rank of random subsets of n rows; a single draw when n is all of them."""
        orders = self.draws.nested[:1] if n == len(self.rows) else self.draws.nested
        return finite_mean(self.at(orders, n, eps, centered=centered))

    def at(
        self, orders: Int[np.ndarray, "draw prompt"], n: int, eps: float, *, centered: bool = False
    ) -> Float[np.ndarray, " draw"]:
        """Ranks of the first n rows of each order."""
        members = prefix_membership(orders, n)
        return self.resampled.ranks(members, eps=eps, centered=centered)


def _as_published(rows: Float[np.ndarray, "pair d_model"], settings: RankAudit) -> Row:
    n, d = rows.shape
    rank = rank_eps(spectrum(rows).values, settings.eps)
    return {
        "matched": False,
        "n": n,
        "d": d,
        "rank_eps": float(rank),
        "rank_eps_centered": float(rank_eps(spectrum(rows, centered=True).values, settings.eps)),
        "rank_over_min_dn": rank / min(n, d),
    }


def _matched(concept: _Sampled, template: _Sampled, settings: RankAudit) -> Row:
    """Both matrices at the same n, ranges from cluster half-samples at the same n / 2."""
    n, d = min(len(concept.rows), len(template.rows)), concept.rows.shape[1]
    rank, other = (side.mean_rank(n, settings.eps) for side in (concept, template))
    halves = [side.at(side.draws.grouped, n // 2, settings.eps) for side in (concept, template)]
    full = float(log_ratio(np.array([rank]), np.array([other]))[0])
    low, high = shifted_range(rank, halves[0])
    template_low, template_high = shifted_range(other, halves[1])
    ratio_low, ratio_high = shifted_range(full, log_ratio(*halves))
    return {
        "matched": True,
        "n": n,
        "d": d,
        "rank_eps": rank,
        "rank_eps_centered": concept.mean_rank(n, settings.eps, centered=True),
        "rank_over_min_dn": rank / min(n, d),
        "rank_template": other,
        "n_template": n,
        "low": low,
        "high": high,
        "template_low": template_low,
        "template_high": template_high,
        "log_ratio": full,
        "log_ratio_low": ratio_low,
        "log_ratio_high": ratio_high,
    }
