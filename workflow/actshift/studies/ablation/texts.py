"""Plain text for the study: which texts, and their losses in every lane, as one Parquet file."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from actshift.edits import Lane
from actshift.engine.intervene_plan import Asked
from actshift.engine.parts import write_part
from actshift.errors import UserError
from actshift.hooks.lanes.generation import Decoder
from actshift.hooks.lanes.losses import lane_losses, lanes_a_batch, predicted_tokens
from actshift.prompts.readers import read_lines
from actshift.prompts.records import Prompt
from actshift.zoo.documents import fact, scene
from actshift.zoo.language import language

#: Texts about the zoo's held-out nouns.
ZOO_TEXTS = 48
#: One row a lane and text.
LOSSES = pa.schema(
    [
        *((name, pa.string()) for name in ("lane", "text_id", "cluster")),
        ("nats", pa.float64()),
        ("n_tokens", pa.int32()),
    ]
)
_TEXTS_A_BATCH = 16


def plain_texts(
    path: str | None,
    *,
    zoo_size: str | None,
    harmless: Sequence[Prompt],
    seed: int,
) -> list[Prompt]:
    """Texts that have nothing to do with refusal, as prompts of the condition `plain`.

    Args:
        path: A file with one text a line (`ablation.plain_text`), or None.
        zoo_size: Size of the zoo's language for a zoo pair without a file: sentences about
            held-out nouns, from a seed of their own.
        harmless: Held-out harmless prompts: what remains for other models without a file.
        seed: Of the zoo's sentences.

    Raises:
        UserError: The file is missing, not UTF-8 or empty.
    """
    if path is not None:
        return [_text(i, line, f"line {i}", path) for i, line in enumerate(_lines(Path(path)))]
    if zoo_size is not None:
        return _zoo_texts(zoo_size, seed)
    return [
        _text(i, prompt.text, prompt.cluster, prompt.source) for i, prompt in enumerate(harmless)
    ]


def text_losses(
    decoder: Decoder,
    texts: Sequence[Asked],
    lanes: Sequence[Lane],
    *,
    token_budget: int,
    label: str,
    out: Path,
) -> None:
    """Write the loss of every text in every lane (`LOSSES`); the file appears whole.

    Args:
        decoder: The model that is edited.
        texts: Texts with their tokens; those with fewer than two predict nothing and are left out.
        lanes: The conditions.
        token_budget: Padded tokens a batch.
        label: Name of the progress bar.
        out: The Parquet file.

    Raises:
        UserError: No text has two tokens.
    """
    kept = [text for text in texts if len(text.ids) > 1]
    if not kept:
        raise UserError("ablation.plain_text: no text has two tokens, so there is no loss")
    kept.sort(key=lambda text: (len(text.ids), text.prompt.id))
    batches = [kept[i : i + _TEXTS_A_BATCH] for i in range(0, len(kept), _TEXTS_A_BATCH)]
    parts: list[pd.DataFrame] = []
    with tqdm(total=len(kept) * len(lanes), desc=label, unit="text", mininterval=1.0) as progress:
        for batch in batches:
            ids = [text.ids for text in batch]
            width = lanes_a_batch(ids, decoder, token_budget)
            for first in range(0, len(lanes), width):
                some = lanes[first : first + width]
                parts.append(_rows(batch, some, lane_losses(decoder, ids, some)))
                progress.update(len(batch) * len(some))
    table = pa.Table.from_pandas(pd.concat(parts), schema=LOSSES, preserve_index=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_part(table, out)


def _rows(batch: Sequence[Asked], lanes: Sequence[Lane], nats: np.ndarray) -> pd.DataFrame:
    columns: Mapping[str, object] = {
        "lane": np.repeat([lane.name for lane in lanes], len(batch)),
        "text_id": [text.prompt.id for text in batch] * len(lanes),
        "cluster": [text.prompt.cluster for text in batch] * len(lanes),
        "nats": nats.ravel(),
        "n_tokens": predicted_tokens([text.ids for text in batch]) * len(lanes),
    }
    return pd.DataFrame(columns)


def _zoo_texts(size: str, seed: int) -> list[Prompt]:
    """Facts and scenes about held-out nouns; the seed is not that of any training."""
    rng = random.Random(f"plain text {size} {seed}")
    lang = language(size)
    nouns = lang.of(split="heldout")
    texts = []
    for number in range(ZOO_TEXTS):
        noun = nouns[number % len(nouns)]
        text = fact(lang, noun, rng) if rng.random() < 0.5 else scene(noun, rng)
        texts.append(_text(number, text, noun.text, "zoo"))
    return texts


def _text(number: int, text: str, cluster: str, source: str) -> Prompt:
    return Prompt(
        id=f"text-{number:04d}",
        text=text,
        condition="plain",
        category="plain",
        cluster=cluster,
        split="heldout",
        source=source,
    )


def _lines(path: Path) -> list[str]:
    lines = read_lines(path.expanduser(), key="ablation.plain_text")
    if not lines:
        raise UserError(f"ablation.plain_text: '{path}' holds no text; expected one text a line")
    return lines
