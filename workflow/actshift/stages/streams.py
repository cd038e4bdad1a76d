"""The stream an extraction job owes, and its model's other streams, from the configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actshift.config import parse_config
from actshift.errors import UserError
from actshift.plan import Plan, StreamName
from actshift.stages.extract import ExtractSettings, Stream


def streams_of(raw: Mapping[str, Any], out: Path) -> tuple[Stream, list[Stream]]:
    """Find the stream that a folder is to hold, and the others of its model.

    Args:
        raw: the run's configuration, not yet checked.
        out: folder of the stream, `results/<run>/activations/<model>/<prompt set>.<template>`.

    Returns:
        The stream, and the siblings that may be read while the model is loaded. The siblings are
        a hint: a longer list changes no byte of the stream.

    Raises:
        UserError: no stream of this configuration lies there.
    """
    plan = Plan(parse_config(raw, origin="config"))
    model = out.parent.name
    streams = [_stream(plan, name) for name in plan.streams_of(model)]
    mine = [stream for stream in streams if stream.out == out]
    if not mine:
        raise UserError(f"{out}: no stream of this configuration; is the pair in `pairs`?")
    return mine[0], [stream for stream in streams if stream.out != out]


def settings_of(raw: Mapping[str, Any], model: str) -> ExtractSettings:
    """Return how a model's streams are read."""
    plan = Plan(parse_config(raw, origin="config"))
    config = plan.config
    return ExtractSettings(
        **config.extract.model_dump(),
        dtype=plan.models[model].pair.dtype,
        seed=config.seed,
        device=config.device,
    )


def _stream(plan: Plan, name: StreamName) -> Stream:
    lender = plan.template_from(name.model, name.template)
    return Stream(
        model=name.model,
        checkpoint=plan.paths.checkpoint(name.model),
        template_from=lender[0] if lender else None,
        prompts=plan.paths.prompts(name.prompt_set),
        prompt_set=name.prompt_set,
        template=name.template,
        positions=plan.config.prompts[name.prompt_set].positions,
        out=plan.stream_folder(name),
    )
