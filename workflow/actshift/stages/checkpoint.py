"""A checkpoint folder of a run: links to one model's files, and the manifest that identifies it.

No torch here: the job reads `config.json`, hashes the weights and makes links.
"""

import json
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text, hash_bytes, hash_file, hash_json, publishing
from actshift.io.manifest import write_manifest
from actshift.models.files import INDEX, safetensors_names
from actshift.models.findings import model_findings
from actshift.models.language_model import language_type
from actshift.models.model_files import ModelFiles
from actshift.models.on_disk import Place
from actshift.models.sources import (
    CONFIG_FILES,
    TOKENIZER_FILES,
    AbliteratedSource,
    HubSource,
    LocalSource,
    LoraSource,
    ZooSource,
    language_config,
    parse_reference,
    shape_in,
)
from actshift.paths import CACHE

STAMPS = CACHE / "weights"


def make_checkpoint(
    source: str,
    *,
    model: str,
    out: Path,
    made: Path | None,
    dtype: str,
    stamps: Path = STAMPS,
) -> dict[str, Any]:
    """Make the folder of one model: absolute links to its files, manifest written last.

    Returns the facts of the manifest. A model that is not there or whose files cannot be used
    (`models.findings`) is a UserError.

    Args:
        source: source string of the model (`actshift.models.sources.parse_reference`).
        model: what the run calls it, `<pair>.<role>` or `<pair>.<reference>`.
        out: folder to make; an older one is replaced as a whole.
        made: folder of a model that the run itself trained or derived, else None.
        dtype: dtype of the forward pass, recorded as a fact.
        stamps: folder that remembers the sha256 of weights by (size, mtime, inode).
    """
    folder, commit = _locate(source, made)
    config = _checked_config(folder, source)
    n_layers, d_model = shape_in(config, name=source)
    weights = safetensors_names(folder)
    tokenizer = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    hashes = {name: stamped_hash(folder / name, stamps) for name in weights}
    facts = {
        "model": model,
        "source": source,
        "revision": commit,
        "family": language_type(config),
        "n_layers": n_layers,
        "d_model": d_model,
        "vocab_size": language_config(config).get("vocab_size"),
        "dtype": dtype,
        "weights": hashes,
        "weights_hash": hash_json(hashes),
        "config_hash": hash_file(folder / "config.json"),
        "tokenizer_hash": hash_json({name: hash_file(folder / name) for name in tokenizer}),
        "template_hash": template_hash(folder),
    }
    extra = [name for name in (*CONFIG_FILES, INDEX) if (folder / name).is_file()]
    with publishing(out) as staged:
        staged.mkdir()
        for name in (*weights, *tokenizer, *extra):
            (staged / name).symlink_to((folder / name).resolve())
        write_manifest(staged, kind="checkpoint", facts=facts)
    return facts


def _locate(source: str, made: Path | None) -> tuple[Path, str | None]:
    """Folder that holds the model's files, and the hub commit (None for other sources)."""
    match parse_reference(source):
        case ZooSource() | LoraSource() | AbliteratedSource():
            if made is None:
                raise UserError(
                    f"{source}: the folder of the checkpoint that the run made is not given"
                )
            return made, None
        case LocalSource() as local:
            return local.folder, None
        case HubSource(repo_id=repo_id, revision=wanted):
            # Only here: the hub library costs a second that zoo and local models need not pay.
            from actshift.models.hub import fetch

            return fetch(repo_id, wanted)


def _checked_config(folder: Path, source: str) -> dict[str, Any]:
    """`config.json` of a model that the project can run; its warnings are printed.

    A folder was looked at before the run began; a hub model may be here for the first time.
    """
    files = ModelFiles(Place(folder, whole=True))
    for finding in model_findings(files):
        if finding.level == "error":
            raise UserError(f"{source}: {finding.text}")
        print(f"{source}: {finding.level}: {finding.text}")
    return files.config


def stamped_hash(path: Path, stamps: Path) -> str:
    """The sha256 of a large file, computed again only when its size, mtime or inode changed.

    `stamps` holds one small JSON file a hashed file; links are followed.
    """
    real = path.resolve()
    stat = real.stat()
    seen = {
        "path": str(real),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
    }
    stamp = stamps / f"{hash_bytes(str(real).encode())[:32]}.json"
    known = _stamped(stamp)
    digest = known.pop("sha256", None)
    if digest is not None and known == seen:
        return digest
    digest = hash_file(real)
    atomic_write_text(stamp, json.dumps({**seen, "sha256": digest}, sort_keys=True) + "\n")
    return digest


def _stamped(stamp: Path) -> dict[str, Any]:
    """What a stamp says; empty without one, and where a crash of the machine left it damaged."""
    try:
        known = json.loads(stamp.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def template_hash(folder: Path) -> str | None:
    """sha256 of the chat template of a tokenizer folder, None where there is none."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return hash_json(jinja.read_text(encoding="utf-8"))
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
            if template:
                return hash_json(template)
    return None
