"""The other streams of an extraction job's model, from the configuration: a hint.

A sibling that is read on the way lands in the cache under the hash of its own content, so a wrong
hint costs time and changes no byte; `engine.extract` alone is in the code hash of rule `extract`,
and a new key of the configuration repeats no extraction.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actshift.config.schema import parse_config
from actshift.engine.extract import Stream
from actshift.plan.plan import Plan, StreamName


def siblings_of(raw: Mapping[str, Any], out: Path) -> list[Stream]:
    """Find the other streams of a model, which may be read while it is loaded for one of them.

    `out` is the folder of the stream that the job owes, `results/<run>/activations/<model>/<prompt
    set>.<template>`; `raw` the configuration, not yet checked. None where `extract.share` is off.
    """
    plan = Plan(parse_config(raw, origin="config"))
    model = out.parent.name
    if not plan.config.extract.share or model not in plan.models:
        return []
    streams = [_stream(plan, name) for name in plan.streams_of(model)]
    return [stream for stream in streams if stream.out != out]


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
