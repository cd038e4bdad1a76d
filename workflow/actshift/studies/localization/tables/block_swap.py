"""Table `block_swap`: weights of one part exchanged, the only share of a part that is its own."""

from actshift.studies.localization.tables.effects import Rows, Sample

OPERATIONS = ("insert", "remove")


def swap_rows(sample: Sample) -> Rows:
    """One row an operation, part and layer; `layer` is empty for embeddings and head.

    Args:
        sample: Of a cell.
    """
    rows: Rows = []
    for operation in OPERATIONS:
        own = sample.cell.swaps.where(operation=operation)
        found = sample.effects(own.logp, operation)
        facts: Rows = [
            {"operation": operation, "part": part, "layer": None if layer != layer else int(layer)}
            for part, layer in zip(own.facts["part"], own.facts["layer"], strict=True)
        ]
        rows += sample.rows(facts, found.with_share())
    return rows
