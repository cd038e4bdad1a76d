"""Tables of the spectral gap and of the calibration networks, made up from a seed."""

import itertools

import numpy as np
import pandas as pd


def gap_table(
    pairs: tuple[str, ...], n_layers: int, d: int, rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    references = ("abliterated", "comply_lora", "comply_full")
    for pair, reference, layer in itertools.product(pairs, references, range(n_layers)):
        rank = 0 if reference == "abliterated" and layer == 0 else int(rng.integers(1, 8))
        bound = 2 / (0.05 * rank) if rank else np.nan
        kappa = bound * float(rng.uniform(0.001, 0.6)) if rank else np.nan
        status = "no difference" if not rank else "rank too high" if rank >= 5 else "informative"
        rows.append({
            "pair": pair, "reference": reference, "layer": layer, "n": 100, "clusters": 24,
            "d": d, "rank_S": rank,
            "sigma_1": 2.0, "sigma_r": 0.1, "norm_honest": 5.0, "norm_unsafe": 6.0, "kappa": kappa,
            "kappa_low": 0.7 * kappa, "kappa_high": 1.4 * kappa, "bound": bound,
            "kappa_over_bound": kappa / bound, "informative": status == "informative",
            "status": status,
        })  # fmt: skip
    return pd.DataFrame(rows)


def gap_summary(pairs: tuple[str, ...], n_layers: int) -> pd.DataFrame:
    here = [
        {"source": "here", "pair": pair, "reference": reference, "layers": n_layers,
         "no_difference": 1, "rank_too_high": 2, "informative": n_layers - 3, "above_8": 1,
         "kappa_median": 0.4, "kappa_max": 11.0, "rank_S_median": 3}
        for pair in pairs for reference in ("abliterated", "comply_lora", "comply_full")
    ]  # fmt: skip
    published = {"source": "published", "pair": "Llama-3.1-8B", "reference": "all three",
                 "layers": 96, "no_difference": 6, "informative": np.nan, "above_8": 1,
                 "kappa_median": 0.0064, "kappa_max": 8.64, "rank_S_median": 20}  # fmt: skip
    return pd.DataFrame([*here, published])


VARIANTS = (("full_finetune", 0.0), ("distributed", 0.5), ("distributed", 5.0),
            ("distributed", 15.0), ("distributed", 50.0))  # fmt: skip


def calibration_tables(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    seeds, ranks = (0, 1, 2), (0, 1, 3, 5, 10, 20, 40, 80, 120)
    ablation, rank, gap = [], [], []
    for (variant, weight), seed in itertools.product(VARIANTS, seeds):
        bias = 0.2 if (seed + weight) % 2 else -0.2
        name = {"seed": seed, "variant": variant, "lambda": weight}
        for r, (kind, draw) in itertools.product(
            ranks, (("principal", 0), ("random", 0), ("random", 1))
        ):
            near = min(r / 40, 1)
            rate = 0.97 * (1 - near) + near * (bias < 0) if kind == "principal" else 0.97
            ablation.append({
                **name, "projection": kind, "draw": draw, "ablated_rank": r, "compliance": rate,
                "bias": bias, "compliance_bias_only": float(bias < 0),
                "compliance_published": rate if r <= 80 else np.nan, "answered_0_control": 0.55,
                "mean_logit_minus_bias": -4 * (1 - near) * rng.uniform(0.8, 1),
            })  # fmt: skip
        for layer in range(3):
            rank.append({**name, "inputs": "safety", "layer": layer, "rho_eps": 0.4 / (layer + 1)})
    for honest, seed, layer in itertools.product(
        ("full_finetune", "distributed_5"), seeds, range(3)
    ):
        r = int(rng.integers(2, 50))
        gap.append({
            "seed": seed, "honest": honest, "unsafe": "unsafe_full_finetune", "layer": layer,
            "rank_S": r, "kappa": 20 / r, "kappa_bound": 40 / r,
        })  # fmt: skip
    return {
        "calibration_ablation": pd.DataFrame(ablation),
        "calibration_rank": pd.DataFrame(rank),
        "calibration_spectral_gap": pd.DataFrame(gap),
    }
