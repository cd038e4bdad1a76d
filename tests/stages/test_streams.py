"""The hint at a model's other streams, and the stream that a rule's own values describe."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from actshift.config.schema import parse_config
from actshift.engine.extract import ExtractSettings, settings_from, stream_from
from actshift.plan.plan import Plan
from actshift.stages.streams import siblings_of

RAW = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "micro.yaml").read_text())
PLAN = Plan(parse_config(RAW, origin="micro"))
NAMES = [name for pair in PLAN.config.pairs for name in PLAN.streams(pair.name)]
FOLDERS = [PLAN.stream_folder(name) for name in NAMES]


@pytest.mark.parametrize("out", FOLDERS, ids=lambda path: "-".join(path.parts[-2:]))
def test_siblings_are_the_other_streams_of_the_model(out: Path) -> None:
    found = {stream.out for stream in siblings_of(RAW, out)}
    assert found == {other for other in FOLDERS if other.parent == out.parent} - {out}


def test_a_stream_described_by_its_rule_is_the_one_that_others_have_for_sibling() -> None:
    """Equal in every field, hence one key: what was read as a sibling is only published later."""
    for out in FOLDERS:
        model, (prompt_set, template) = out.parent.name, out.name.split(".")
        given = {
            "checkpoint": str(PLAN.paths.checkpoint(model)),
            "prompts": str(PLAN.paths.prompts(prompt_set)),
            "template": [str(path) for path in PLAN.template_from(model, template)],
        }
        names = {"model": model, "prompt_set": prompt_set, "template": template}
        positions = PLAN.config.prompts[prompt_set].positions
        parts = (SimpleNamespace(**d) for d in (given, names, {"positions": positions}))
        mine = stream_from(*parts, out=str(out))
        others = [folder for folder in FOLDERS if folder.parent == out.parent and folder != out]
        assert others
        for other in others:
            assert mine in siblings_of(RAW, other)


def test_no_hint_without_sharing_or_for_a_model_of_another_run() -> None:
    alone = {**RAW, "extract": {**RAW.get("extract", {}), "share": False}}
    assert siblings_of(alone, FOLDERS[0]) == []
    assert siblings_of(RAW, Path("results/x/activations/gone.base/harmful.raw")) == []


def test_settings_are_those_of_the_configuration() -> None:
    config = PLAN.config
    settings = config.extract.model_dump(exclude={"share"})
    params = SimpleNamespace(settings=settings, dtype="bfloat16", seed=3)
    found = settings_from(params, device="cpu")
    expected = {**config.extract.model_dump(), "share": True, "dtype": "bfloat16", "seed": 3}
    assert found == ExtractSettings(**expected, device="cpu")
