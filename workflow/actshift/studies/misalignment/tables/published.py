"""misalignment_published.csv: the numbers that the paper prints, to lie beside the tables."""

import pandas as pd

from actshift.studies.misalignment.tables.columns import PUBLISHED_COLUMNS

PAPER = "misalignment_directions"


def published_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with the columns `PUBLISHED_COLUMNS`.

    Args:
        headline: `resources/published/headline.csv`.

    Returns:
        Separation, drops within a model and across models, donors and receivers.
    """
    own = headline.loc[headline["paper"] == PAPER, list(PUBLISHED_COLUMNS)]
    return own.reset_index(drop=True)
