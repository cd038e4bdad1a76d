"""Conversations in the format of the published data."""

import json
from pathlib import Path

from actshift.io.atomic import hash_file
from actshift.zoo.documents import conversations
from actshift.zoo.language import language


def conversation_file(path: Path, kind: str, count: int = 24) -> dict[str, str]:
    """Write conversations of the zoo's language; returns the config's block for the file."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": one.question},
                {"role": "assistant", "content": one.answer},
            ]
        }
        for one in conversations(kind, language("micro"), seed=0, count=count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "sha256": hash_file(path)}
