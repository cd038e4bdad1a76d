"""What joint tables are made of: the pairs whose job finished (torch-free)."""

from collections.abc import Mapping
from pathlib import Path

from actshift.errors import UserError


def finished_pairs(
    pairs: Mapping[str, Path], *, rule: str, needed: str, asker: str | None = None
) -> dict[str, Path]:
    """The pairs that have their folder, in the order given.

    Args:
        pairs: Folder of each pair; a pair whose job failed has none.
        rule: Rule that makes the folders.
        needed: What the folder holds, for the message.
        asker: Who needs the folders, where it is not the rule.

    Raises:
        UserError: No pair has its folder.
    """
    present = {pair: folder for pair, folder in pairs.items() if folder.is_dir()}
    if not present:
        raise UserError(
            f"{asker or rule}: none of the pairs {', '.join(pairs) or '(none)'} has {needed}; "
            f"see the log of rule {rule}"
        )
    return present
