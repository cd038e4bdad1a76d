"""Running out of memory is an event, not an end: halve the batch and go on."""

import ctypes
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from actshift.errors import UserError
from actshift.packing import greedy
from actshift.patching import TokenPair

#: How torch's allocator for main memory words it; there is no class of its own.
_CPU_WORDS = "can't allocate memory"
#: glibc's `mallopt` settings: (number, bytes). Blocks of a pass are megabytes, all together under
#: 1 GB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 2**30), (-3, 2**25)


def keep_freed_memory() -> bool:
    """Let the allocator keep freed blocks: the tensors of a step are else mapped anew every time.

    Costs no bit of any result and saves up to a fifth of the time. Where the C library has no
    `mallopt` nothing happens. Returns whether both settings were taken.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(*setting) == 1 for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_WORDS in str(error)


def unless_out_of_memory(work: Callable[[], Any]) -> tuple[bool, Any]:
    """Do the work: (True, result), or (False, None) if memory ran out, which is then freed."""
    try:
        return True, work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # The frames of the failed work hold its tensors.
        error.__traceback__ = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False, None


@dataclass
class Batches:
    """Results by batch, and how often a batch had to be cut in two."""

    done: list[tuple[tuple[int, ...], Any]]
    halved: int = 0


def in_batches(
    work: Callable[[Sequence[int]], Any], pairs: Sequence[TokenPair], *, token_budget: int
) -> Batches:
    """Do the work on batches of pairs of similar length, halving those that do not fit.

    `work` takes places of pairs; `token_budget` is the most tokens in a batch, padding counted; a
    longer pair goes alone.

    Raises:
        UserError: One pair alone does not fit.
    """
    sizes = [(len(pair.prompt), max(map(len, pair.sides))) for pair in pairs]

    def fits(places: list[int]) -> bool:
        width, longest = (max(size) for size in zip(*(sizes[i] for i in places), strict=True))
        return len(places) * (width + 2 * longest) <= token_budget

    def too_large(place: int) -> UserError:
        tokens = sum(map(len, (pairs[place].prompt, *pairs[place].sides)))
        return UserError(
            f"pair {pairs[place].id}: its {tokens} tokens alone do not fit into memory; lower the "
            "token limit of pairs, or take a device with more memory"
        )

    order = sorted(range(len(pairs)), key=lambda i: (sizes[i], i))
    return in_halves(work, list(map(tuple, greedy(order, fits))), too_large)


def in_halves(
    work: Callable[[tuple[int, ...]], Any],
    parts: Sequence[tuple[int, ...]],
    too_large: Callable[[int], Exception],
) -> Batches:
    """Do the work on each part, cut in two where memory runs out, down to one that is too large."""
    batches = Batches([])
    waiting = list(parts)[::-1]
    while waiting:
        places = waiting.pop()
        is_done, result = unless_out_of_memory(partial(work, places))
        if is_done:
            batches.done.append((places, result))
        elif len(places) > 1:
            half = len(places) // 2
            waiting += [places[half:], places[:half]]
            batches.halved += 1
        else:
            raise too_large(min(places))
    return batches
