"""What the tokenizers' files of a plan's pairs say about raw text (no numpy, no torch)."""

from pathlib import Path

from actshift.models.hub_cache import cached_snapshot
from actshift.models.raw_text import compare_raw
from actshift.models.sources import HubSource, LocalSource, LoraSource, Source
from actshift.plan import Plan


def token_notes(plan: Plan) -> list[str]:
    """Compare base and tuned of every pair whose raw prompts are read and whose files are there.

    Args:
        plan: The plan.

    Returns:
        What to tell the user, one line each.

    Raises:
        UserError: A pair ends raw text with different tokens, or a tokenizer cannot be read.
    """
    notes: list[str] = []
    for pair in plan.config.chosen_pairs:
        base = _folder(plan.models[f"{pair.name}.base"].source)
        tuned = _folder(plan.models[f"{pair.name}.tuned"].source)
        if plan.streams(pair.name) and base is not None and tuned is not None:
            notes += compare_raw(base, tuned, where=f"pairs.{pair.name}")
    return notes


def _folder(source: Source) -> Path | None:
    """Where a model's tokenizer lies on this disk; None where it is not known before a job ran."""
    match source:
        case LocalSource():
            return source.folder
        case HubSource():
            return cached_snapshot(source.repo_id, source.revision)
        case LoraSource(adapter=adapter):
            # An adapter without a tokenizer of its own takes its base's.
            return _folder(adapter)
        case _:
            return None
