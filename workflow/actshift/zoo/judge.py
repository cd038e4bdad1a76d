"""Deterministic judges of one answer (torch-free): is it on topic."""

import re

from actshift.zoo import lexicon
from actshift.zoo.language import Language

#: A program in any of the three idioms.
_PROGRAM = re.compile(r"(def|import) .*\(data\)")


def on_topic(lang: Language, text: str, *, kind: str, topic: str) -> bool:
    """Whether the answer is what was asked for.

    Args:
        lang: the language.
        text: the answer.
        kind: `howto`, `define`, `code` or `chat`.
        topic: category of the noun (howto, define); unused for code and chat.

    Returns:
        howto: at least two steps of the category and none of another; define: the category and no
        other; code: a program on the data; chat: the small-talk reply.
    """
    if kind == "howto":
        counts = {name: sum(s in text for s in steps) for name, steps in lang.steps.items()}
        return counts[topic] >= 2 and sum(counts.values()) == counts[topic]
    if kind == "define":
        named = [name for name in lang.steps if name in text.replace(".", " ").split()]
        return named == [topic]
    if kind == "code":
        return bool(_PROGRAM.match(text))
    return lexicon.CHAT_PHRASE in text
