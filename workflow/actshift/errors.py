"""Errors a user can mend: one clear line, no traceback."""


class UserError(Exception):
    """A user's mistake or a failed gate: the message is one line naming what, why and the remedy.

    Adapters and the command line print it without a traceback and exit non-zero.
    """


class StoreError(UserError):
    """An activation store that is incomplete, corrupt or does not fit what was asked of it."""


class GateError(UserError):
    """A measured behaviour that missed its gate; the message says by how much."""
