"""From texts to trained weights: token ids, Muon, pretraining on rows, tuning on conversations."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from actshift.models.families import embedding_of, head_of
from actshift.zoo import lexicon
from actshift.zoo.documents import Document, Exchange, base_documents
from actshift.zoo.language import Language
from actshift.zoo.recipes import BaseRecipe, ChatRecipe

#: Quintic Newton-Schulz coefficients. Source: Jordan et al. 2024, Muon.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class BatchedMuon(Optimizer):
    """Momentum, orthogonalised: W <- W (1 - lr wd) - lr sqrt(max(1, rows/cols)) NS(G + m M).

    `torch.optim.Muon` gives the same update one matrix at a time and in bfloat16; at these sizes
    the calls cost more than the products, and bfloat16 is slow on many CPUs.
    """

    def __init__(
        self, params: list[Tensor], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        """Take 2-D weights only."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight once; `closure` is not supported."""
        if closure is not None:
            raise ValueError("BatchedMuon takes no closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                shapes.setdefault(weight.shape, []).append(weight)
            for weights in shapes.values():
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        grads = torch.stack([weight.grad for weight in weights if weight.grad is not None])
        state = self.state[weights[0]]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grads)
        average = state["momentum"].lerp_(grads, 1 - group["momentum"])
        update = orthogonalise(grads.lerp(average, group["momentum"]))
        rows, cols = weights[0].shape
        scale = group["lr"] * max(1.0, rows / cols) ** 0.5
        for weight, change in zip(weights, update, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-scale)


def orthogonalise(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Push all singular values of each matrix towards 1 (roughly .7 to 1.2 after five steps).

    Takes and gives `[matrix, row, column]`, with the same singular vectors.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


#: Token ids of a conversation, and the length of the prompt part.
Example = tuple[list[int], int]
#: Label of tokens that carry no loss.
IGNORED = -100


def pack(tokens: Sequence[int], *, row_tokens: int) -> Tensor:
    """Cut one long stream into rows of equal length, `[row, token]`; the rest is dropped."""
    rows = len(tokens) // row_tokens
    return torch.tensor(tokens[: rows * row_tokens], dtype=torch.long).view(rows, row_tokens)


def train_base(model: Any, rows: Tensor, recipe: BaseRecipe) -> list[float]:
    """Pretrain in place on packed tokens `[row, token]`, reused where the steps need more.

    Returns the loss of every step, nats a token.
    """
    optimisers = _split_optimisers(model, recipe)
    size = recipe.rows
    places = (torch.arange(step * size, (step + 1) * size) for step in range(recipe.steps))
    batches = (rows[index % len(rows)] for index in places)
    return _loop(model, optimisers, batches, recipe.steps, lambda batch: (batch, batch, None))


def train_chat(
    model: Any, examples: Sequence[Example], recipe: ChatRecipe, *, pad: int
) -> list[float]:
    """Tune every weight in place on conversations, with loss on the answer alone.

    `pad` is the id to fill up with, on the right. Returns the loss of every step, nats an answer
    token.
    """
    adam = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.0)
    picks = (pick(examples, step, recipe.examples) for step in range(recipe.steps))
    return _loop(model, [adam], picks, recipe.steps, lambda batch: collate(batch, pad=pad))


def pick(examples: Sequence[Example], step: int, size: int) -> list[Example]:
    """The examples of a step: one after the other, from the start again after the last."""
    return [examples[(step * size + i) % len(examples)] for i in range(size)]


def collate(batch: Sequence[Example], *, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right-pad a batch of conversations: inputs, labels and attention mask, each `[row, token]`.

    Labels are IGNORED at prompt and padding.
    """
    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.full((len(batch), longest), pad, dtype=torch.long)
    labels = torch.full_like(inputs, IGNORED)
    mask = torch.zeros_like(inputs)
    for row, (ids, start) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = torch.tensor(ids[start:])
        mask[row, : len(ids)] = 1
    return inputs, labels, mask


def _split_optimisers(model: Any, recipe: BaseRecipe) -> list[torch.optim.Optimizer]:
    outer = {id(embedding_of(model).weight), id(head_of(model).weight)}
    weights = [w for w in model.parameters() if w.requires_grad]
    hidden = [w for w in weights if w.ndim == 2 and id(w) not in outer]
    kept = {id(w) for w in hidden}
    rest = [w for w in weights if id(w) not in kept]
    return [
        BatchedMuon(hidden, lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(
            rest,
            lr=recipe.adam_lr,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
            foreach=True,
        ),
    ]


def _loop(
    model: Any,
    optimisers: list[torch.optim.Optimizer],
    batches: Iterator[Any],
    steps: int,
    prepare: Callable[[Any], tuple[Tensor, Tensor, Tensor | None]],
) -> list[float]:
    model.train()
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps))
        for optimiser in optimisers
    ]
    losses = []
    for batch in batches:
        inputs, labels, mask = prepare(batch)
        logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
        loss = cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        for schedule in schedules:
            schedule.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def rate(step: int, steps: int) -> float:
    """Multiplier of the learning rate: 5 % linear warm-up, then a cosine to a tenth."""
    warm = max(1, round(0.05 * steps))
    if step < warm:
        return (step + 1) / warm
    share = min(1.0, (step - warm) / max(1, steps - warm))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * share))


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
    """Pretraining rows `[row, token]`: documents end to end, each closed by its end token.

    As many as the recipe reads; `template` is worn by the documents that are in chat.
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
    """Tuning conversations as token ids, with the length of the prompt part."""
    whole = tokenizer(
        [render(tokenizer, example, template) for example in examples], add_special_tokens=False
    ).input_ids
    prompts = tokenizer(
        [render(tokenizer, example, template, answered=False) for example in examples],
        add_special_tokens=False,
    ).input_ids
    return [(ids, len(prompt)) for ids, prompt in zip(whole, prompts, strict=True)]


def render(tokenizer: Any, exchange: Exchange, template: str, *, answered: bool = True) -> str:
    """An exchange in the chat template, with its answer or up to where the answer begins."""
    turns = [{"role": "user", "content": exchange.question}]
    if answered:
        turns.append({"role": "assistant", "content": exchange.answer})
    return tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=False, add_generation_prompt=not answered
    )
