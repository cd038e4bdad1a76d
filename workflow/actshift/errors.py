"""Errors a user can mend: one clear line, no traceback."""

import errno
import os
import re

#: What a file system or the machine refuses whatever the data are, and what mends it.
_REMEDIES = {
    errno.EROFS: "take a folder that can be written, or mount the file system for writing",
    errno.EACCES: "change the permissions of the file or its folder, or take another folder",
    errno.EPERM: "change the permissions of the file or its folder, or take another folder",
    errno.ENOSPC: "free space there and run the same command again",
    errno.EDQUOT: "free space there and run the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and run the same command again",
    errno.ENFILE: "close other programs and run the same command again",
    errno.EIO: "the disk or network share fails: check it and run the same command again",
    errno.ESTALE: "the network share fails: mount it again and run the same command again",
    errno.ENOLCK: "the file system has no file locks: take a folder on another one",
}
#: How libraries in Rust, such as safetensors, end their message of a system error.
_CODE_IN_TEXT = re.compile(r"\(os error (\d+)\)")


class UserError(Exception):
    """A user's mistake or a failed gate: the message is one line naming what, why and the remedy.

    Adapters and the command line print it without a traceback and exit non-zero.
    """


class StoreError(UserError):
    """An activation store that is incomplete, corrupt or does not fit what was asked of it."""


class GateError(UserError):
    """A measured behaviour that missed its gate; the message says by how much."""


def refusal_of(error: BaseException, where: object = None) -> str | None:
    """Name what the file system or the machine refused, and what mends it.

    One line, or None where the error, and what it was raised from, is about something else than the
    machine. `where` is named where the error names no file.
    """
    cause: BaseException | None = error
    while cause is not None:
        code = cause.errno if isinstance(cause, OSError) else _code_in(str(cause))
        if code in _REMEDIES:
            named = getattr(cause, "filename", None) or where
            place = (
                f"{os.fsdecode(named) if isinstance(named, bytes) else named}: " if named else ""
            )
            return f"{place}{os.strerror(code)}; {_REMEDIES[code]}"
        cause = cause.__cause__
    return None


def one_line(error: BaseException) -> str:
    """What an error of a library says, on one line and not longer than a few."""
    return " ".join(str(error).split())[:240]


def _code_in(text: str) -> int | None:
    """Number of the system error that a message names."""
    named = _CODE_IN_TEXT.search(text)
    return int(named[1]) if named else None
