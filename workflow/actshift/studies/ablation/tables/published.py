"""ablation_published.csv: the released ablations, cumulative and single, in one shape."""

import pandas as pd

from actshift.studies.ablation.study import STUDY

#: Matrix names of the release. Its Llama and Gemma sweeps hand naive shifts to the ablation, where
#: the paper's text says template.
_MATRICES = {"as_released": "naive", "M_template": "template", "M_DiD": "did"}
#: The sweep's names; the single directions were run in the narrow band only.
_BANDS = {"narrow_45_70": "narrow", "wide_30_85": "wide"}


def published_table(sweep: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Both released files as rows with the columns `STUDY.table("ablation_published").names`.

    Args:
        sweep: `resources/published/ablation_sweep.csv`.
        single: `resources/published/per_direction_ablation.csv`.

    Returns:
        `kind` is `cumulative` (the leading k directions; k = 0 is the unedited model) or `single`.
    """
    ends = {"refusal_rate": "refusal", "wilson95_low": "low", "wilson95_high": "high"}
    cumulative = sweep.rename(columns={**ends, "random_refusal_rate": "random_refusal"})
    cumulative = cumulative.assign(
        matrix=cumulative["matrix"].map(_MATRICES),
        band=cumulative["band"].map(_BANDS),
        kind="cumulative",
        directions=None,
    )
    numbers = single["direction"].str.removeprefix("u_")
    alone = single.rename(columns=ends).assign(
        matrix="template",
        band="narrow",
        kind="single",
        k=1,
        directions=numbers,
        random_refusal=None,
    )
    columns = list(STUDY.table("ablation_published").names)
    rows = [*cumulative[columns].to_dict("records"), *alone[columns].to_dict("records")]
    return pd.DataFrame(rows, columns=columns)
