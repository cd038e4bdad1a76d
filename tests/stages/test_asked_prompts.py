"""Every stage that scores or generates answers asks up to where the template puts an answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference.tiny_models import TEMPLATE

from actshift.engine.intervene import encode_questions
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, read_prompts, write_prompts
from actshift.studies.misalignment.stages import adapter_doses
from actshift.studies.refusal_direction import stage as refusal_direction
from actshift.studies.refusal_direction.study import RefusalDirection

#: As a thought that was left empty: two words between the generation prompt and an answer.
LEAD = TEMPLATE.replace("'<model>'", "'<model> tell me'")
Ask = Callable[[LoadedModel, Path], list[Any]]


def _probes(loaded: LoadedModel, path: Path) -> list[Any]:
    asked = adapter_doses.encode_probes(loaded, path)
    return [*asked["code"], *asked["other"]]


def _sides(loaded: LoadedModel, path: Path) -> list[Any]:
    settings = RefusalDirection(n_fit=9, n_select=9, n_heldout=9)
    sides, _ = refusal_direction._sides(loaded, {"harmful": path}, settings, 0)
    return [one.ids for split in sides["harmful"].values() for one in split]


STAGES: dict[str, Ask] = {
    "misalignment": lambda m, p: [one.ids for one in encode_questions(m, read_prompts(p))],
    "ablation, reference_behaviour": lambda m, p: [
        one.ids for one in encode_questions(m, read_prompts(p), chat=m.tokenizer)
    ],
    "adapters": _probes,
    "refusal_direction": _sides,
}


@pytest.mark.parametrize("stage", STAGES)
def test_prompts_end_where_an_answer_begins(stage, own_checkpoint, tmp_path):
    folder = own_checkpoint("llama", template=LEAD)
    loaded = load_model(folder, name="pair.tuned", dtype="float32", device="cpu")
    path = tmp_path / "harmful.jsonl"
    splits: Any = ("fit", "select", "heldout")
    rows = [
        Prompt(f"p{split}", "bake a loaf", "harmful", "", split, split, "test") for split in splits
    ]
    write_prompts(path, rows)
    turns = [
        {"role": "user", "content": "bake a loaf"},
        {"role": "assistant", "content": "garden"},
    ]
    tokenizer: Any = loaded.tokenizer
    answered = tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]
    before = answered[: answered.index(tokenizer.convert_tokens_to_ids("garden"))]
    asked = STAGES[stage](loaded, path)
    assert asked
    assert all(list(ids) == before for ids in asked)
    assert tokenizer.convert_ids_to_tokens(before)[-3:] == ["<model>", "tell", "me"]
