"""Tables `patching`, `sources` and `block_swap`: states or weights of the donor, layer by layer."""

from actshift.studies.localization.settings import DIRECTIONS
from actshift.studies.localization.tables.effects import Rows, Sample
from actshift.studies.localization.tables.estimate import following
from actshift.studies.localization.tables.inputs import Lanes

#: The source of a plain patch in the table `sources`: each completion has its own donor states.
DONOR = "donor"
OPERATIONS = ("insert", "remove")


def patch_lanes(sample: Sample, direction: str, positions: str) -> Lanes:
    """The plain patch at every layer.

    Args:
        sample: Of a cell.
        direction: forward or reverse.
        positions: At which tokens.
    """
    cell = {"experiment": "patch", "direction": direction, "positions": positions}
    return sample.cell.patches.where(**cell).by_layer()


def curves(sample: Sample) -> list[tuple[str, str]]:
    """Direction and positions of every curve of plain patches.

    Args:
        sample: Of a cell.
    """
    patched = sample.cell.patches.where(experiment="patch")
    return [
        (direction, str(positions))
        for direction in DIRECTIONS
        for positions in patched.where(direction=direction).values("positions")
    ]


def patching_rows(sample: Sample) -> Rows:
    """One row a direction, choice of positions and layer.

    increment = share(l) - share(l - 1): what the patch of one more block adds; layer 0 against 0.

    Args:
        sample: Of a cell.
    """
    rows: Rows = []
    for direction, positions in curves(sample):
        lanes = patch_lanes(sample, direction, positions)
        effects = sample.effects(lanes.logp, direction)
        facts: Rows = [
            {"direction": direction, "positions": positions, "layer": int(layer)}
            for layer in lanes.layers
        ]
        added = following(effects.share).columns("increment")
        rows += sample.rows(facts, effects.with_share(), added)
    return rows


def source_rows(sample: Sample) -> Rows:
    """One row a direction, source, choice of positions and layer; none where no source was run.

    Args:
        sample: Of a cell.
    """
    ran = sample.cell.patches.where(experiment="source")
    rows: Rows = []
    for direction in DIRECTIONS:
        of_direction = ran.where(direction=direction)
        for positions in of_direction.values("positions"):
            here = of_direction.where(positions=positions)
            for source in (DONOR, *here.values("source")):
                lanes = (
                    patch_lanes(sample, direction, str(positions))
                    if source == DONOR
                    else here.where(source=source).by_layer()
                )
                facts: Rows = [
                    {
                        "direction": direction,
                        "source": source,
                        "positions": positions,
                        "layer": int(layer),
                    }
                    for layer in lanes.layers
                ]
                effects = sample.effects(lanes.logp, direction)
                rows += sample.rows(facts, effects.with_share())
    return rows


def swap_rows(sample: Sample) -> Rows:
    """One row an operation, part and layer; `layer` is empty for embeddings and head.

    Exchanged weights are the only share of a part that is its own.

    Args:
        sample: Of a cell.
    """
    rows: Rows = []
    for operation in OPERATIONS:
        units = sample.cell.swaps.where(operation=operation)
        effects = sample.effects(units.logp, operation)
        facts: Rows = [
            {"operation": operation, "part": part, "layer": None if layer != layer else int(layer)}
            for part, layer in zip(units.facts["part"], units.facts["layer"], strict=True)
        ]
        rows += sample.rows(facts, effects.with_share())
    return rows
