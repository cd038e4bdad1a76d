"""Attribution: planted truths, noise, scikit-learn, and inputs that cannot be fitted."""

import numpy as np
import pandas as pd
import pytest
from reference.localization_files import POSITIONS, pair_files
from reference.processes import modules_after
from sklearn.linear_model import ElasticNetCV, LassoCV, LinearRegression
from sklearn.model_selection import GroupKFold, KFold
from sklearn.preprocessing import StandardScaler

from actshift.errors import UserError
from actshift.maths.lasso import ALPHAS, group_folds
from actshift.studies.localization.join import attribution_tables
from actshift.studies.localization.study import COLUMNS
from actshift.studies.localization.tables.distances import LEAST_CLUSTERS, problems_of
from actshift.studies.localization.tables.inputs import PairFiles
from actshift.studies.localization.tables.lasso import half_folds, stability

N, LAYERS = 40, 6
CODES = np.append(np.arange(36), np.arange(4))
CLUSTERS = [f"noun{code:02d}" for code in CODES]
EXACT = {"tol": 1e-12, "max_iter": 200_000}


def noise(seed: int, n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        position: 5 + 0.5 * rng.normal(size=(n, 1)) + rng.normal(size=(n, LAYERS))
        for position in POSITIONS
    }


def tables(files: PairFiles) -> dict[str, pd.DataFrame]:
    found = attribution_tables(files, pair="p", seed=0)
    assert tuple(found) == ("distances", "probe", "lasso", "lasso_stability")
    for name, rows in found.items():
        assert all(tuple(row) == COLUMNS[name] for row in rows)
    return {name: pd.DataFrame(rows, columns=list(COLUMNS[name])) for name, rows in found.items()}


def of(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.reset_index(drop=True)


@pytest.fixture(scope="module")
def planted() -> tuple[PairFiles, dict[str, np.ndarray], np.ndarray, dict[str, pd.DataFrame]]:
    """Gap = 40 + 3 distance of layer 2 at the last chosen token; lengths have no say."""
    rng = np.random.default_rng(1)
    norms = noise(0)
    gap = 40 + 3 * norms["last_chosen"][:, 2] + rng.normal(size=N)
    lengths = rng.integers(6, 15, size=(N, 3))
    shares = np.array([0.1, 0.2, 0.3, 0.8, 0.2, 0.1])
    files = pair_files(gap, norms, clusters=CLUSTERS, lengths=lengths, shares=shares)
    return files, norms, gap, tables(files)


def test_a_planted_layer_is_stable_and_others_are_not(planted) -> None:
    rows = of(planted[3]["lasso_stability"], position="last_chosen", target="gap")
    assert rows["stable"].tolist() == [False, False, True, False, False, False]
    assert rows["permutations"].min() >= 99
    assert rows.loc[2, "p"] == pytest.approx(1 / (1 + rows.loc[2, "permutations"]))
    first = rows.iloc[0]
    assert first["r2_out_low"] > 0.5
    assert first["gain_over_length_low"] > 0
    assert (first["stable_layers"], first["layers_beyond_quarter"]) == (1, 0)
    assert (first["peak_layer"], first["distance_to_peak"]) == (3, 1)
    assert set(rows["status"]) == {"decided"}
    elsewhere = of(planted[3]["lasso_stability"], position="last_rejected", target="gap")
    assert set(elsewhere["status"]) == {"not measured"}
    assert elsewhere["why"].str.len().min() > 0


def test_targets_are_the_gap_the_gap_per_token_and_the_mean_patch(planted) -> None:
    files, _, gap, _ = planted
    (cell,) = problems_of(files, seed=0)
    np.testing.assert_allclose(cell.targets["gap"], gap)
    tokens = files.pairs["n_chosen"].to_numpy()
    np.testing.assert_allclose(cell.targets["gap_per_token"], gap / tokens)
    np.testing.assert_allclose(cell.targets["patch_effect"], gap * 1.7 / 6)


def test_rows_are_those_of_scikit_learn(planted) -> None:
    _, norms, gap, found = planted
    x, y = StandardScaler().fit_transform(norms["last_chosen"]), gap - gap.mean()
    by_cluster = list(GroupKFold(5).split(x, groups=CODES))
    references = {
        ("lasso", "contiguous"): LassoCV(alphas=ALPHAS, cv=KFold(5), **EXACT),
        ("lasso", "cluster"): LassoCV(alphas=ALPHAS, cv=by_cluster, **EXACT),
        ("elastic_net", "cluster"): ElasticNetCV(
            alphas=ALPHAS, l1_ratio=0.5, cv=by_cluster, **EXACT
        ),
    }
    for (model, folds), reference in references.items():
        rows = of(found["lasso"], position="last_chosen", target="gap", model=model, folds=folds)
        reference.fit(x, y)
        assert rows["layer"].tolist() == list(range(LAYERS))
        np.testing.assert_allclose(rows["coefficient"], reference.coef_, atol=1e-6)
        np.testing.assert_allclose(rows["alpha"], reference.alpha_)
        np.testing.assert_allclose(rows["r2"], reference.score(x, y))
        assert set(rows["support"]) == {int((np.abs(reference.coef_) > 1e-9).sum())}


def test_fit_to_unseen_clusters_is_that_of_a_loop(planted) -> None:
    files, norms, gap, found = planted
    lengths = files.pairs[["n_prompt", "n_chosen", "n_rejected"]].to_numpy(float)
    product = (lengths[:, 1] - lengths[:, 1].mean()) * (lengths[:, 2] - lengths[:, 2].mean())
    lengths = np.column_stack([lengths, product])
    outer, x = group_folds(CODES, 5), norms["last_chosen"]
    lasso, line, length, mean = (np.zeros(N) for _ in range(4))
    for fold in range(5):
        train, test = outer != fold, outer == fold
        scaler = StandardScaler().fit(x[train])
        cv = list(GroupKFold(5).split(x[train], groups=CODES[train]))
        fit = LassoCV(alphas=ALPHAS, cv=cv, **EXACT).fit(scaler.transform(x[train]), gap[train])
        lasso[test] = fit.predict(scaler.transform(x[test]))
        line[test] = LinearRegression().fit(x[train, 2:3], gap[train]).predict(x[test, 2:3])
        length[test] = LinearRegression().fit(lengths[train], gap[train]).predict(lengths[test])
        mean[test] = gap[train].mean()
    wanted = [1 - ((gap - p) ** 2).sum() / ((gap - mean) ** 2).sum() for p in (lasso, line, length)]
    row = of(
        found["lasso"], position="last_chosen", target="gap", model="lasso", folds="cluster"
    ).iloc[0]
    assert row["r2_out"] == pytest.approx(wanted[0], rel=1e-5)
    assert row["r2_out_length"] == pytest.approx(wanted[2])
    gain = row["r2_out_with_length"] - row["r2_out_length"]
    assert row["gain_over_length"] == pytest.approx(gain)
    assert row["gain_over_length_low"] < gain < row["gain_over_length_high"]
    probe = of(found["probe"], position="last_chosen", target="gap").iloc[2]
    assert probe["r2_out"] == pytest.approx(wanted[1])
    whole = LinearRegression().fit(x[:, 2:3], gap)
    assert probe["slope"] == pytest.approx(whole.coef_[0])
    assert probe["intercept"] == pytest.approx(whole.intercept_)
    assert probe["r2"] == pytest.approx(whole.score(x[:, 2:3], gap))
    assert probe["slope_low"] < 3 < probe["slope_high"]


def test_distances_are_means_with_their_growth(planted) -> None:
    _, norms, _, found = planted
    rows = of(found["distances"], position="last_prompt")
    means = norms["last_prompt"].mean(axis=0)
    np.testing.assert_allclose(rows["norm"], means)
    np.testing.assert_allclose(rows["norm_sd"], norms["last_prompt"].std(axis=0, ddof=1))
    np.testing.assert_allclose(rows["growth"][1:], means[1:] / means[:-1])
    assert np.isnan(rows["growth"][0])
    assert ((rows["norm_low"] < means) & (means < rows["norm_high"])).all()


def test_what_lengths_explain_is_no_gain_of_distances() -> None:
    rng = np.random.default_rng(5)
    lengths = rng.integers(5, 30, size=(N, 3))
    norms = {key: 0.2 * lengths[:, 1:2] + 0.2 * own for key, own in noise(3).items()}
    gap = 2.0 * lengths[:, 1] + rng.normal(size=N)
    rows = of(
        tables(pair_files(gap, norms, clusters=CLUSTERS, lengths=lengths))["lasso_stability"],
        position="last_chosen",
        target="gap",
    )
    assert rows["r2_out_low"].min() > 0.5
    assert set(rows["why"]) == {"distances add nothing to lengths"}


def test_noise_has_a_stable_layer_in_few_seeds() -> None:
    files = pair_files(np.arange(N, dtype=float), noise(7), clusters=CLUSTERS)
    (cell,) = problems_of(files, seed=0)
    folds = half_folds(cell, draws=60)
    hits = []
    for seed in range(20):
        target = np.random.default_rng(seed).normal(size=N)
        tested = stability(
            cell.norms["last_chosen"],
            target,
            cell.codes,
            folds,
            permutations=39,
            null_halves=30,
            seed=seed,
        )
        hits.append(bool(tested.stable.any()))
    # Expected 1 of 20; five or more have a chance of 3 in 1000.
    assert sum(hits) < 5


@pytest.mark.parametrize(("clusters", "pairs"), [(1, 1), (1, 4), (2, 2), (LEAST_CLUSTERS - 1, 9)])
def test_few_clusters_are_not_measured(clusters: int, pairs: int) -> None:
    gap = np.arange(pairs, dtype=float) ** 2
    names = [f"c{i % clusters}" for i in range(pairs)]
    found = tables(pair_files(gap, noise(1, pairs), clusters=names, shares=np.ones(LAYERS)))
    for name in ("lasso", "lasso_stability"):
        assert set(found[name]["status"]) == {"not measured"}
        assert set(found[name]["why"]) == {f"{clusters} clusters, fewer than {LEAST_CLUSTERS}"}
    assert found["lasso_stability"]["frequency"].isna().all()
    assert len(found["probe"]) == 9 * LAYERS


def test_the_fewest_clusters_are_fitted() -> None:
    names = [f"c{i}" for i in range(LEAST_CLUSTERS)] * 2
    gap = np.random.default_rng(0).normal(size=len(names))
    found = tables(pair_files(gap, noise(2, len(names)), clusters=names))
    rows = of(found["lasso_stability"], target="gap")
    assert rows["frequency"].notna().all()
    assert rows["r2_out"].notna().all()


def test_what_has_no_spread_is_not_measured() -> None:
    norms = noise(4)
    norms["last_prompt"] = np.full((N, LAYERS), 3.0)
    norms["last_chosen"][:, 0] = 2.0
    gap = np.random.default_rng(2).normal(size=N)
    rows = tables(pair_files(gap, norms, clusters=CLUSTERS))["lasso_stability"]
    assert set(of(rows, position="last_prompt", target="gap")["why"]) == {
        "distances at last_prompt are the same in all pairs"
    }
    missing = of(rows, target="patch_effect")
    assert missing["why"].str.startswith("no patch_effect").all()
    assert missing["peak_layer"].isna().all()
    one = of(rows, position="last_chosen", target="gap")
    assert one.loc[0, "frequency"] == 0
    constant = tables(pair_files(np.full(N, 8.0), noise(4), clusters=CLUSTERS))
    assert set(of(constant["lasso"], target="gap")["why"]) == {"gap is the same in all pairs"}
    assert of(constant["probe"], target="gap")["r2"].isna().all()


def test_a_missing_distance_is_refused() -> None:
    files = pair_files(np.arange(N, dtype=float), noise(0), clusters=CLUSTERS)
    with pytest.raises(UserError, match=r"distances\.parquet"):
        problems_of(PairFiles(**{**files.__dict__, "distances": files.distances.iloc[1:]}), seed=0)


def test_no_torch_is_loaded() -> None:
    module = "actshift.studies.localization.join"
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert not {"torch", "transformers"} & loaded
