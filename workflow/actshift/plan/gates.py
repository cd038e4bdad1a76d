"""What a plan asks of models before anything is measured on them, and where numbers lie (no torch).

Imported by the rules.
"""

from actshift.plan.plan import Plan
from actshift.studies.misalignment.study import Misalignment
from actshift.studies.registry import STUDIES


def zoo_gates(plan: Plan) -> bool:
    """Whether the zoo's checkpoints have gates; the smallest size learns too little for any."""
    zoo = plan.config.zoo
    return zoo.size != "micro" if zoo.gated is None else zoo.gated


def gated(plan: Plan, pair: str) -> bool:
    """Whether a pair's models have to show what they were tuned to do."""
    return pair not in plan.zoo_sizes() or zoo_gates(plan)


def adapter_gates(plan: Plan, pair: str) -> dict[str, float]:
    """What is asked of a pair's insecure adapter.

    Where gates are off, nothing but what the pair itself asks for.
    """
    section = plan.config.of(Misalignment)
    gates = plan.models[f"{pair}.tuned"].pair.gates.model_dump()
    if not gated(plan, pair):
        return {name: least or 0.0 for name, least in gates.items()}
    return {key: getattr(section, key) if least is None else least for key, least in gates.items()}


def number_folders(plan: Plan) -> dict[str, dict[str, str]]:
    """The folder of each pair's numbers, by study that has one a pair."""
    return {
        study: plan.table_folders(STUDIES[study].measured[0])
        for study in plan.config.studies
        if STUDIES[study].measured
    }
