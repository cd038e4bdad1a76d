"""What the tokenizers' files of a plan's pairs say about raw text (no numpy, no torch)."""

from pathlib import Path

from actshift.errors import UserError
from actshift.models.findings import Finding, error, warning
from actshift.models.hub_cache import cached_snapshot
from actshift.models.raw_text import compare_raw
from actshift.models.sources import HubSource, LocalSource, LoraSource, Source
from actshift.plan.plan import Plan


def raw_findings(plan: Plan, pair: str) -> list[Finding]:
    """Compare what base and tuned make of raw text, where a study reads it and the files are there.

    Args:
        plan: The plan.
        pair: Name of the pair.

    Returns:
        An error where raw text ends with different tokens; warnings for what moves no position.
    """
    base = _folder(plan.models[f"{pair}.base"].source)
    tuned = _folder(plan.models[f"{pair}.tuned"].source)
    if not plan.streams(pair) or base is None or tuned is None:
        return []
    try:
        return [warning(note) for note in compare_raw(base, tuned, where=f"pairs.{pair}")]
    except UserError as fault:
        return [error(str(fault))]
    except OSError:
        return []  # the checks of the model say which file cannot be read


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
