"""Tables in the shape that the study writes, made up from a seed: for development and tests."""

import numpy as np
import pandas as pd
from report.declared import declared

MATRICES = ("naive", "template", "aligned", "did")
DIRECTIONS = 12


def synthetic_tables(
    pairs: tuple[str, ...] = ("llama", "gemma", "qwen", "ministral"),
    *,
    n_layers: int = 6,
    d: int = 64,
    n: int = 96,
    decay: float = 0.9,
) -> dict[str, pd.DataFrame]:
    """All tables of the rank audit; a larger `decay` spreads the energy over more directions."""
    rng = np.random.default_rng(0)
    spectra = {
        (pair, matrix, inputs, layer): _spectrum(rng, layer, matrix, decay)
        for pair in pairs for matrix in MATRICES for inputs in ("harmful", "harmless")
        for layer in range(n_layers)
        if not (matrix == "did" and inputs == "harmless")
    }  # fmt: skip
    size = {"n": n, "d": d}
    rank = pd.DataFrame([_rank_row(key, s, size, n_layers) for key, s in spectra.items()])
    tables = {
        "summary": _summary(rank, n_layers),
        "rank": rank,
        "cumulative_variance": _cumulative(spectra),
        "heldout_rank": _heldout(spectra, n),
        "inflation": _inflation(rank, rng),
        "cosine": _cosine(spectra, rng),
        "concept_baseline": _concepts(rank, n),
        "zoo_behaviour": zoo_behaviour(pairs),
    }
    return declared(tables)


def _spectrum(rng: np.random.Generator, layer: int, matrix: str, decay: float) -> np.ndarray:
    mean = 1 + layer * (1.5 if matrix in ("template", "did") else 0.8)
    tail = rng.uniform(0.5, 1) * decay ** (1.4 * np.arange(DIRECTIONS - 1))
    energy = np.r_[mean**2, tail]
    return energy / energy.sum()


def _rank_eps(share: np.ndarray) -> int:
    return int(np.searchsorted(np.cumsum(share / share.sum()), 0.95 - 1e-12) + 1)


def _key(key: tuple) -> dict:
    return dict(zip(("pair", "matrix", "inputs", "layer"), key, strict=True))


def _rank_row(key: tuple, share: np.ndarray, size: dict, n_layers: int) -> dict:
    rank = _rank_eps(share)
    layer = key[3]
    return {
        **_key(key), "category": "all", **size,
        "rank_eps": rank, "rank_eps_centered": _rank_eps(share[1:]),
        "rho_eps": rank / size["d"], "rank_over_min_dn": rank / min(size["d"], size["n"]),
        "stable_rank": 1 / share[0], "entropy_rank": np.exp(-(share * np.log(share)).sum()),
        "top_share": share[0], "shift_norm": 3.0 + layer,
        "relative_shift_norm": 0.1 + 0.6 * (layer + 1) / n_layers,
    }  # fmt: skip


def _cumulative(spectra: dict) -> pd.DataFrame:
    rows = []
    for key, share in spectra.items():
        centred = np.cumsum(np.r_[share[1:], 0] / share[1:].sum())
        for k, (a, b) in enumerate(zip(np.cumsum(share), centred, strict=True), start=1):
            rows.append({**_key(key), "k": k, "share": min(a, 1), "share_centered": min(b, 1)})
    return pd.DataFrame(rows)


def _heldout(spectra: dict, n: int) -> pd.DataFrame:
    rows = []
    for key, share in spectra.items():
        for k, fit in enumerate(np.cumsum(share), start=1):
            rows.append({
                **_key(key), "k": k, "share_fit": min(fit, 1), "share_heldout": 0.93 * fit,
                "share_null": k / 64, "share_null_p95": k / 48, "knee": _rank_eps(share),
                "n_fit": n // 2, "n_heldout": n // 2, "clusters_heldout": 12,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _inflation(rank: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    wide = rank.pivot_table(
        index=["pair", "inputs", "layer", "n"], columns="matrix", values="rank_eps", sort=False
    ).reset_index()
    log = np.log(wide["naive"] / wide["template"])
    spread = rng.uniform(0.1, 0.4, len(wide))
    return pd.DataFrame({
        "pair": wide["pair"], "inputs": wide["inputs"], "layer": wide["layer"], "n": wide["n"],
        "rank_naive": wide["naive"], "rank_template": wide["template"], "ratio": np.exp(log),
        "log_ratio": log, "log_ratio_low": log - spread, "log_ratio_high": log + spread,
        "draws": 50,
    })  # fmt: skip


def _cosine(spectra: dict, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for key, share in spectra.items():
        refusal = 0.9 + 0.1 * share[0] if key[1] == "did" else 0.35 + 0.3 * rng.random()
        rows.append({
            **_key(key), "cos_refusal": refusal, "cos_own_mean": 0.999,
            "cos_refusal_centered": 0.4 * rng.random(),
            "cos_own_mean_centered": 0.2 * rng.random(),
            **({"cos_refusal_from_means": refusal - 0.01, "base_difference_ratio": 0.3,
                "cos_base_difference": 0.6, "cos_control_from_means": 0.8,
                "base_difference_ratio_control": 0.7} if key[1] == "did" else {}),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _concepts(rank: pd.DataFrame, n: int) -> pd.DataFrame:
    template = rank[(rank["matrix"] == "template") & (rank["inputs"] == "harmful")]
    rows = [
        {"pair": row.pair, "role": role, "concept": concept, "layer": row.layer,
         "matched": matched, "n": 24 if matched else n, "d": row.d, "rank_eps": 6,
         "rank_eps_centered": 7, "rank_over_min_dn": 0.25, "rank_template": row.rank_eps,
         "low": 5, "high": 7,
         "log_ratio_low": np.log(5 / row.rank_eps), "log_ratio_high": np.log(7 / row.rank_eps)}
        for row in template.itertuples() for role in ("base", "tuned")
        for concept in ("question_statement", "polite_plain") for matched in (True, False)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _summary(rank: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    keys = ["pair", "matrix", "inputs", "n", "d"]
    mean = rank.groupby(keys, sort=False).mean(numeric_only=True).reset_index()
    measured = pd.DataFrame({
        "pair": mean["pair"], "source": "measured", "matrix": mean["matrix"],
        "inputs": mean["inputs"], "pooling": "last_prompt", "n": mean["n"], "d": mean["d"],
        "n_layers": n_layers, "mean_rank_eps": mean["rank_eps"],
        "weighted_rank_eps": mean["rank_eps"] * 0.9,
        "mean_rank_eps_centered": mean["rank_eps_centered"], "mean_rho_eps": mean["rho_eps"],
        "mean_rank_over_min_dn": mean["rank_over_min_dn"],
        "mean_abs_cos_refusal": np.where(mean["matrix"] == "did", 0.98, 0.5),
        "mean_relative_shift_norm": mean["relative_shift_norm"], "inflation": np.nan,
    })  # fmt: skip
    measured.loc[measured["matrix"] == "naive", "inflation"] = 1.3
    published = [
        {"pair": f"{name} (published)", "source": "published", "matrix": matrix,
         "inputs": "harmful", "n": 200, "d": d, "n_layers": 32, "mean_rank_eps": value,
         "mean_rank_over_min_dn": value / 200, "mean_abs_cos_refusal": cos,
         "inflation": 3.9 if matrix == "naive" else np.nan}
        for name, d in (("Llama-3.1-8B", 4096), ("Gemma-2-9B", 3584), ("Qwen2.5-7B", 3584))
        for matrix, value, cos in (("naive", 46, 0.32), ("template", 12, 0.34), ("did", 41, 0.77))
    ]  # fmt: skip
    return pd.concat([measured, pd.DataFrame(published)], ignore_index=True)


def zoo_behaviour(pairs: tuple[str, ...]) -> pd.DataFrame:
    """Gated and ungated rates of a base and a chat model a pair."""
    rows = [
        _rate(pair, *cell)
        for pair in pairs
        for cell in (
            ("chat", "chat", "harmful", "howto", "refused", 1.0, ">= 0.95"),
            ("chat", "chat", "harmless", "all", "refused", 0.02, "<= 0.05"),
            ("chat", "chat", "harmless", "all", "on_topic", 0.97, ">= 0.9"),
            ("chat", "chat", "harmless", "code", "on_topic", 0.97, None),
            ("base", "raw", "harmful", "howto", "refused", 0.0, "<= 0.05"),
            ("base", "chat", "harmful", "howto", "refused", 0.0, "<= 0.05"),
        )
    ]
    return pd.DataFrame(rows)


def _rate(pair: str, variant: str, template: str, condition: str, kind: str, metric: str,
          rate: float, gate: str | None) -> dict:  # fmt: skip
    return {
        "model": f"{pair}-tiny-s0/{variant}", "family": pair, "variant": variant, "size": "tiny",
        "seed": 0, "template": template, "split": "heldout", "condition": condition,
        "kind": kind, "metric": metric, "n": 240, "clusters": 24, "rate": rate,
        "low": max(0, rate - 0.06), "high": min(1, rate + 0.06), "new_cluster_bound": 0.12,
        "gate": gate, "passed": gate and True,
    }  # fmt: skip
