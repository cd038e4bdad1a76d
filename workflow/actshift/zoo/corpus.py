"""Texts of the language as the token ids that the two trainings read."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from actshift.zoo import lexicon
from actshift.zoo.documents import Document, Exchange, base_documents
from actshift.zoo.language import Language
from actshift.zoo.recipes import BaseRecipe
from actshift.zoo.training import pack

#: Documents the vocabulary is made from: the same for every seed, so that seeds share tokens.
_VOCABULARY_DOCUMENTS = 6000
_VOCABULARY_SEED = 0
#: Tokens of a document are about 15; fewer documents than rows hold are reused.
_DOCUMENTS_A_ROW = 5.5


def plain_text(document: Document) -> str:
    """A document without chat template: free text, or question and answer on two lines."""
    if document.exchange is None:
        return document.text
    return f"{document.exchange.question}\n{document.exchange.answer}"


def vocabulary_texts(lang: Language) -> list[str]:
    """What a family's tokenizer is trained on: documents, and the answer only chat gives."""
    documents = base_documents(lang, _VOCABULARY_DOCUMENTS, seed=_VOCABULARY_SEED)
    return [plain_text(document) for document in documents] + [lexicon.REFUSAL] * 50


def corpus_rows(
    lang: Language, tokenizer: Any, template: str, recipe: BaseRecipe, *, seed: int
) -> Tensor:
    """Pretraining rows: documents end to end, each closed by its end token.

    Args:
        lang: the language.
        tokenizer: of the base model.
        template: the family's chat template, for the documents that wear it.
        recipe: says how many rows the training reads.
        seed: of the documents.

    Returns:
        int64 `[row, token]`.
    """
    count = round(recipe.steps * recipe.rows * _DOCUMENTS_A_ROW)
    documents = base_documents(lang, count, seed=seed)
    plain = [plain_text(document) for document in documents if not document.chat]
    turns = [
        render(tokenizer, document.exchange, template)
        for document in documents
        if document.chat and document.exchange
    ]
    # One call each: tokenising document by document takes several times as long.
    raw = iter(tokenizer(plain).input_ids)
    chat = iter(tokenizer(turns, add_special_tokens=False).input_ids)
    tokens: list[int] = []
    for document in documents:
        tokens += next(chat) if document.chat else [*next(raw), tokenizer.eos_token_id]
    return pack(tokens, row_tokens=recipe.row_tokens)


def chat_tokens(
    tokenizer: Any, template: str, examples: Sequence[Exchange]
) -> list[tuple[list[int], int]]:
    """Tuning conversations as token ids, with the length of the prompt part.

    Args:
        tokenizer: of the model that is tuned.
        template: the family's chat template.
        examples: of `chat_examples` or `comply_examples`.
    """
    whole = tokenizer(
        [render(tokenizer, example, template) for example in examples], add_special_tokens=False
    ).input_ids
    asked = tokenizer(
        [render(tokenizer, example, template, answered=False) for example in examples],
        add_special_tokens=False,
    ).input_ids
    return [(ids, len(prompt)) for ids, prompt in zip(whole, asked, strict=True)]


def render(tokenizer: Any, exchange: Exchange, template: str, *, answered: bool = True) -> str:
    """An exchange in the chat template, with its answer or up to where the answer begins."""
    turns = [{"role": "user", "content": exchange.question}]
    if answered:
        turns.append({"role": "assistant", "content": exchange.answer})
    return tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=False, add_generation_prompt=not answered
    )
