"""Which tokens end an answer, joined from all that a checkpoint says; and whether answers do end.

`generation_config.json` often keeps the base's end of a document after tuning taught another end of
a turn. Answers would then run on into turns of their own making, and be judged with them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from actshift.errors import UserError
from actshift.models.load import LoadedModel
from actshift.models.tokenizers import say_once
from actshift.prompts.answers import turn_end
from actshift.prompts.templates import Tokenizer


def eos_of(loaded: LoadedModel, *, chat: Tokenizer | None = None) -> frozenset[int]:
    """Token ids that end an answer of a model.

    Those of generation_config.json, the tokenizer's eos_token, and what the chat template writes
    right behind an answer. Ends that generation_config.json does not list are named in the log.

    Args:
        loaded: The model.
        chat: Where the chat template comes from; the model's own tokenizer if None.

    Raises:
        UserError: There is none.
    """
    listed = _listed(loaded.model.generation_config)
    tokenizer = loaded.tokenizer
    tokens = {
        "the tokenizer's eos_token": tokenizer.eos_token_id,
        "the end of a turn in the chat template": turn_end(tokenizer, chat_tokenizer=chat),
    }
    ends = set(listed)
    for what, token in tokens.items():
        # A token without an embedding is never written.
        if isinstance(token, int) and token < loaded.vocab_size and token not in ends:
            ends.add(token)
            text = tokenizer.convert_ids_to_tokens(token)
            say_once(
                f"{loaded.name}: answers also end at {text} ({token}), {what}, which "
                "generation_config.json does not list"
            )
    if not ends:
        raise UserError(
            f"{loaded.name}: generation_config.json names no eos_token_id, the tokenizer has no "
            "eos_token and the chat template ends no turn, so no answer would ever end; add "
            "eos_token_id to generation_config.json"
        )
    return frozenset(ends)


def warn_endless(
    conditions: Sequence[str], ended: Sequence[bool], *, model: str, max_new: int
) -> list[str]:
    """Say in the log of which prompts no plain answer came to an end.

    Args:
        conditions: Of the prompt of each plain answer.
        ended: Whether each came to an end.
        model: How to call the model.
        max_new: Most new tokens of an answer.

    Returns:
        The conditions.
    """
    counts = Counter(conditions)
    with_ends = {name for name, over in zip(conditions, ended, strict=True) if over}
    endless = [name for name in counts if name not in with_ends]
    for name in endless:
        print(
            f"warning: {model}: none of the {counts[name]} plain answers to '{name}' prompts ended "
            f"within {max_new} tokens (max_new); refusals and distinct_2 are read from cut-off "
            "answers: raise max_new, or add the token that ends a turn to eos_token_id in "
            "generation_config.json"
        )
    return endless


def _listed(settings: object) -> Iterable[int]:
    ends = getattr(settings, "eos_token_id", None)
    if ends is None:
        return ()
    return (ends,) if isinstance(ends, int) else tuple(ends)
