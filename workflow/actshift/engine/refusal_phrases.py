"""Which keywords tell a refusal of a model, by where it comes from."""

from pathlib import Path

from actshift.io.manifest import read_manifest
from actshift.maths.scores import ARDITI_MARKS
from actshift.zoo.lexicon import REFUSAL_MARKS


def marks_of(checkpoint: Path) -> tuple[str, ...]:
    """Keywords of a refusal: the zoo's own, and the published ones for every other model."""
    source = str(read_manifest(checkpoint)["facts"]["source"])
    return REFUSAL_MARKS if source.startswith("zoo:") else ARDITI_MARKS
