"""misalignment_published.csv: the numbers that the paper prints, to lie beside the tables."""

import pandas as pd

from actshift.studies.misalignment.study import STUDY

PAPER = "misalignment_directions"


def published_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with the columns `STUDY.table("misalignment_published").names`.

    Args:
        headline: `resources/published/headline.csv`.

    Returns:
        Separation, drops within a model and across models, donors and receivers.
    """
    own = headline.loc[
        headline["paper"] == PAPER, list(STUDY.table("misalignment_published").names)
    ]
    return own.reset_index(drop=True)
