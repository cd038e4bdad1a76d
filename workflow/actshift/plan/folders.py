"""What a model's folder holds beside the declared inputs of the rule that reads it (no torch)."""

import hashlib
import json
from pathlib import Path

from actshift.models.sources import CONFIG_FILES, TOKENIZER_FILES, LocalSource, LoraSource
from actshift.plan.plan import Plan


def files_seen(plan: Plan, model: str) -> str:
    """Hash of the small files of a model's own folder, for the `params` of the rule that reads it.

    A chat template or a tokenizer file may appear, change or go after a run: inputs are named by
    what lies there, and a file that is copied with its old time looks unchanged. Weights count by
    name and size, since hashing them is the job's own work.

    Args:
        plan: The plan of the run.
        model: `<pair>.<role>` or `<pair>.<reference>`.

    Returns:
        16 hex digits; empty for a model that lies in no folder of the user's.
    """
    source = plan.models[model].source
    given = source.adapter if isinstance(source, LoraSource) else source
    return _hash_of(given.folder) if isinstance(given, LocalSource) else ""


def _hash_of(folder: Path) -> str:
    small = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (*CONFIG_FILES, *TOKENIZER_FILES)
        if (folder / name).is_file()
    }
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    weights = {path.name: path.stat().st_size for path in files}
    return hashlib.sha256(json.dumps([small, weights]).encode()).hexdigest()[:16]
