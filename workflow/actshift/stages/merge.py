"""A pair's base with somebody's LoRA adapter in its weights, as an ordinary checkpoint folder."""

from pathlib import Path
from typing import Any

from actshift.io.atomic import publishing, remove
from actshift.io.manifest import weights_hash, write_manifest
from actshift.models.adapters import adapter_hash, import_adapter, load_merged, locate, named
from actshift.models.load import LoadedModel, load_model, open_tokenizer
from actshift.models.model_files import chat_template_of
from actshift.models.sources import LORA
from actshift.models.tokenizers import save_checkpoint


def merge(source: str, *, model: str, base: Path, out: Path) -> None:
    """Add an adapter to the base's weights, W + scale B A in float32, and save the model.

    Weights keep the base's dtype. The tokenizer, with its chat template, is the adapter's where its
    folder has one, else the base's. `source` is `lora:` and a folder or hub id, `model` what the
    run calls the result, `base` the checkpoint folder of the pair's base. An adapter that is
    missing, no plain LoRA or does not fit the base is a UserError.
    """
    located = locate(source.removeprefix(LORA), None, key=model)
    plain = load_model(base, name=f"{model} (base)", dtype="float32", device="cpu")
    tokenizer = _tokenizer(located.folder, plain, model)
    with publishing(out) as folder:
        folder.mkdir()
        adapter = folder / "adapter"
        with named(model):
            import_adapter(located.folder, adapter, base=plain, weights=weights_hash(base))
        merged = load_merged(base, adapter, name=model, dtype="auto", device="cpu")
        facts = {
            **located.facts,
            "model": model,
            "adapter": adapter_hash(adapter),
            "base_weights_hash": weights_hash(base),
        }
        remove(adapter)
        save_checkpoint(merged.model, tokenizer, folder)
        write_manifest(folder, kind="merged", facts=facts)
    print(f"{model}: {located.facts['source']} merged into the base")


def _tokenizer(adapter: Path, base: LoadedModel, model: str) -> Any:
    """The adapter's tokenizer, or the base's; a template that lies alone in its folder counts."""
    if (adapter / "tokenizer.json").is_file():
        return open_tokenizer(adapter, name=model)
    if (adapter / "chat_template.jinja").is_file():
        base.tokenizer.chat_template = chat_template_of(adapter)
    return base.tokenizer
