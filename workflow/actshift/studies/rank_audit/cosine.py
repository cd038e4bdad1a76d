"""Cosines of the leading direction, and the algebra of the means beside them."""

import numpy as np
from jaxtyping import Float

from actshift.maths.directions import MeanAlgebra, cosine, did_mean_algebra
from actshift.maths.spectrum import Spectrum, spectrum
from actshift.studies.rank_audit.inputs import AlignedStreams, ConceptPairs
from actshift.studies.rank_audit.layer import LayerData, concept_rows
from actshift.studies.rank_audit.spectra import categories

Row = dict[str, object]


def control_algebra(
    streams: AlignedStreams, concept: ConceptPairs | None, *, layer: int
) -> MeanAlgebra | None:
    """The algebra of the means for a contrast that has nothing to do with refusal."""
    if concept is None:
        return None
    tuned, base = (
        concept_rows(streams, concept, layer=layer, role=role, template="chat").mean(axis=0)
        for role in ("tuned", "base")
    )
    return did_mean_algebra(tuned, base)


def cosine_rows(data: LayerData, control: MeanAlgebra | None) -> list[Row]:
    """|cos| of u_1 with the refusal direction and with the own mean, and the algebra for did."""
    algebra = did_mean_algebra(data.tuned_contrast, data.base_contrast)
    rows: list[Row] = []
    for item in data.fitted.values():
        row: Row = {
            **item.key,
            "layer": data.layer,
            **_cosines(item.plain, item.centered, item.shift.rows, data.tuned_contrast),
        }
        if item.shift.matrix == "did":
            row["cos_refusal_from_means"] = algebra.cos_from_means
            row["base_difference_ratio"] = algebra.base_ratio
            row["cos_base_difference"] = algebra.cos_base
            if control is not None:
                row["cos_control_from_means"] = control.cos_from_means
                row["base_difference_ratio_control"] = control.base_ratio
                row["cos_base_difference_control"] = control.cos_base
        rows.append(row)
    return rows


def category_rows(data: LayerData) -> list[Row]:
    """The same cosines per category; the refusal direction stays that of all prompts."""
    rows: list[Row] = []
    for item in data.fitted.values():
        for category in categories(item.prompts):
            part = item.shift.rows[item.prompts.mask(category)]
            spectra = spectrum(part, k=1), spectrum(part, k=1, centered=True)
            rows.append(
                {
                    **item.key,
                    "category": category,
                    "layer": data.layer,
                    "n": len(part),
                    **_cosines(*spectra, part, data.tuned_contrast),
                }
            )
    return rows


def _cosines(
    plain: Spectrum,
    centered: Spectrum,
    rows: Float[np.ndarray, "prompt d_model"],
    refusal: Float[np.ndarray, " d_model"],
) -> dict[str, float]:
    mean = rows.mean(axis=0)
    return {
        "cos_refusal": _leading(plain, refusal),
        "cos_own_mean": _leading(plain, mean),
        "cos_refusal_centered": _leading(centered, refusal),
        "cos_own_mean_centered": _leading(centered, mean),
    }


def _leading(spec: Spectrum, vector: Float[np.ndarray, " d_model"]) -> float:
    """|cos| of u_1 and a vector; the sign of a singular vector means nothing."""
    return abs(cosine(spec.left[:, 0], vector)) if spec.left.shape[1] else float("nan")
