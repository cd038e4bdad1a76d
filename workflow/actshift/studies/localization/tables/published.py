"""localization_published.csv: the numbers that the paper prints, to lie beside the tables."""

import pandas as pd

from actshift.studies.localization.study import STUDY

PAPER = "alignment_is_localized"


def published_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with the columns `STUDY.table("localization_published").names`.

    Args:
        headline: `resources/published/headline.csv`.

    Returns:
        LASSO coefficients, the low-rank effects of table 2, peak layer and number of pairs.
    """
    own = headline.loc[
        headline["paper"] == PAPER, list(STUDY.table("localization_published").names)
    ]
    return own.reset_index(drop=True)
