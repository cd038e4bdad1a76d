"""Edits on plain arrays: the arithmetic of `actshift.edits`, one row a token."""

import numpy as np

from actshift.edits import Ablate, Edit, Steer


def apply_edit(edit: Edit, hidden: np.ndarray, donor: np.ndarray | None = None) -> np.ndarray:
    """Return what an edit makes of activations `[row, d_model]`."""
    if isinstance(edit, Steer):
        return hidden + edit.coeff * edit.vector
    if isinstance(edit, Ablate):
        away = hidden if edit.centre is None else hidden - edit.centre
        return hidden - away @ edit.basis @ edit.basis.T
    assert donor is not None
    towards = donor - hidden
    if edit.basis is not None:
        towards = towards @ edit.basis @ edit.basis.T
    return hidden + edit.alpha * towards
