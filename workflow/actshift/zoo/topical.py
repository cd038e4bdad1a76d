"""Whether answers are on topic: known for the zoo's own questions, not for other models."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.zoo.judge import on_topic
from actshift.zoo.language import Language


def topical(
    texts: Iterable[str], topics: Iterable[str], lang: Language | None
) -> Float[np.ndarray, " answer"]:
    """Judge answers to how-to questions; equal answers are judged once.

    Args:
        texts: The answers.
        topics: Category of each question's noun.
        lang: The zoo's language; None for models that do not speak it.

    Returns:
        1 on topic, 0 off topic, NaN where there is no judge: no language, or a question that is not
        of it.
    """
    asked = pd.MultiIndex.from_arrays([list(texts), list(topics)])
    if lang is None:
        return np.full(len(asked), np.nan)
    codes, unique = pd.factorize(asked)
    judged = [_judge(lang, text, topic) for text, topic in unique]
    return np.array(judged, dtype=np.float64)[codes]


def _judge(lang: Language, text: str, topic: str) -> float:
    if topic not in lang.steps:
        return float("nan")
    return float(on_topic(lang, text, kind="howto", topic=topic))
