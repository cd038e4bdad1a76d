"""Which phrases count as a refusal of a model, by where the model comes from."""

from pathlib import Path

from actshift.io.manifest import read_manifest
from actshift.maths.scores import ARDITI_PHRASES
from actshift.zoo.lexicon import ZOO_PHRASES


def refusal_phrases_for(
    of_zoo: bool, *, published: tuple[str, ...] = ARDITI_PHRASES
) -> tuple[str, ...]:
    """Those of the zoo's language for a model of the zoo, else the list of the study's paper."""
    return ZOO_PHRASES if of_zoo else published


def refusal_phrases_of(checkpoint: Path) -> tuple[str, ...]:
    """The phrases for a checkpoint, by the source that its manifest names."""
    source = str(read_manifest(checkpoint)["facts"]["source"])
    return refusal_phrases_for(source.startswith("zoo:"))
