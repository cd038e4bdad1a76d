"""Misalignment tables: what the stages left of each pair, then what is said over all pairs."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import load_file

from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.missed import first_missed, has_numbers
from actshift.io.store import ActivationStore
from actshift.io.tables import read_table
from actshift.maths.paired import holm
from actshift.prompts.records import read_prompts
from actshift.studies.misalignment.kinds import ACROSS, KINDS, SAME_ARCHITECTURE, UNSEEN, UNTUNED
from actshift.studies.misalignment.outcomes import is_harmful, question_row
from actshift.studies.misalignment.study import COLUMNS, STUDY
from actshift.studies.misalignment.tables.adapters import (
    Shifts,
    cosine_rows,
    detection_rows,
    dose_rows,
    harmless_ids,
    ladder_rows,
    separation_rows,
    spillover_rows,
)
from actshift.studies.misalignment.tables.edits import (
    content_rows,
    side_effect_rows,
    steering_rows,
    transfer_rows,
)
from actshift.studies.misalignment.tables.lanes import Lanes, PairFiles, Rows
from actshift.studies.misalignment.tables.specificity import (
    Judged,
    Receiver,
    judged_edits,
    specificity_rows,
)
from actshift.studies.misalignment.tables.topology import topology_rows

#: Set whose states are stored.
_SET = "questions"


def read_pair(pair: str, folders: Mapping[str, Path], questions: pd.DataFrame) -> PairFiles:
    """Read what there is of one pair, from the folders of its stages.

    Raises:
        UserError: Outcomes do not fit their lanes.
        StoreError: States are damaged.
    """
    there = {stage: folder for stage, folder in folders.items() if has_numbers(folder)}
    adapters, spillover = there.get("adapters"), there.get("spillover")
    missed = first_missed(folders.values())
    # Where the gate is missed the answers are there and nothing is made from them.
    answers = folders["spillover"] / "answers.parquet" if "spillover" in folders else None
    states = _Stores(spillover / "states") if spillover else None
    return PairFiles(
        pair=pair,
        questions=questions,
        dose=read_table(adapters / "dose.csv") if adapters else None,
        ladder=read_table(adapters / "ladder.csv") if adapters else None,
        answers=pd.read_parquet(answers) if answers and answers.is_file() else None,
        directions=load_file(spillover / "directions.safetensors") if spillover else None,
        states=states,
        models=states.models if states else (),
        steering=_lanes(there.get("steering")),
        transfer=_lanes(there.get("transfer")),
        missing=tuple(stage for stage in folders if stage not in there),
        missed="" if missed is None else missed.status,
    )


class _Stores:
    """States of every model of a pair, each layer read once."""

    def __init__(self, folder: Path) -> None:
        self.models = tuple(
            name for name in (UNTUNED, *KINDS, *UNSEEN) if (folder / f"{name}.{_SET}").is_dir()
        )
        self._stores = {
            name: ActivationStore.open(folder / f"{name}.{_SET}") for name in self.models
        }
        self._kept: dict[tuple[str, int], Float[np.ndarray, "prompt d_model"]] = {}
        self._places: dict[str, dict[str, int]] = {}

    def __call__(
        self, model: str, layer: int, prompt_ids: list[str]
    ) -> Float[np.ndarray, "prompt d_model"]:
        store = self._stores[model]
        if (model, layer) not in self._kept:
            self._kept[model, layer] = store.read(layer)
            self._places[model] = {name: at for at, name in enumerate(store.prompt_ids)}
        places = self._places[model]
        if not all(name in places for name in prompt_ids):
            # Says which question is not there.
            return store.read(layer, prompt_ids=prompt_ids)
        return self._kept[model, layer][[places[name] for name in prompt_ids]]


def _lanes(folder: Path | None) -> Lanes | None:
    if folder is None:
        return None
    names = ("lanes", "outcomes", "answers", "prompts")
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    return Lanes.of(**tables, where=str(folder))


def pair_tables(files: PairFiles, *, seed: int) -> tuple[dict[str, Rows], list[Judged]]:
    """Every table's rows of one pair, and its edits at the chosen coefficients.

    Returns:
        Table -> rows, without those over all pairs and without `p_holm`; then the edits.

    Raises:
        StoreError: A question has no state.
    """
    shifts, pair = Shifts(files), files.pair
    edits, harmless = judged_edits(Receiver(files, seed)), harmless_ids(files)
    of_lanes = [lanes for lanes in (files.steering, files.transfer) if lanes is not None]
    sides = (side_effect_rows(one, pair=pair, harmless=harmless, seed=seed) for one in of_lanes)
    tables: dict[str, Rows] = {
        "dose": dose_rows(files, shifts),
        "ladder": ladder_rows(files),
        "spillover": spillover_rows(files, seed=seed),
        "direction_cosines": cosine_rows(shifts),
        "separation": separation_rows(shifts, seed=seed),
        "detection": detection_rows(shifts, seed=seed),
        "side_effects": [row for rows in sides for row in rows],
        "content": content_rows(files, shifts, seed=seed),
        "specificity": specificity_rows(edits),
    }
    if files.steering is not None:
        tables["steering"] = steering_rows(files.steering, pair=pair, seed=seed)
    if files.transfer is not None:
        tables["transfer"] = transfer_rows(files.transfer, pair=pair, seed=seed)
    return tables, edits


def over_pairs(
    tables: dict[str, Rows],
    edits: Sequence[Judged],
    *,
    pairs: Sequence[str],
    kin: Collection[tuple[str, str]],
    seed: int,
) -> dict[str, Rows]:
    """Complete the tables with what is said over all pairs.

    Args:
        tables: Table -> rows of all pairs.
        edits: At the chosen coefficients, of all pairs.
        pairs: Names of the pairs that were tried.
        kin: Donors and receivers of one architecture; what passes between these is not across
            architectures, and claims about that do not read it.
        seed: Of permutations.

    Returns:
        Table -> rows, of every table that is made from pairs.
    """
    joined: dict[str, Rows] = {name: tables.get(name, []) for name in COLUMNS}
    topology = topology_rows(edits, pairs=pairs, seed=seed)
    return joined | {
        "specificity": with_holm(_with_kin(joined["specificity"], kin)),
        "topology": _with_kin(topology, kin),
    }


def _with_kin(rows: Rows, kin: Collection[tuple[str, str]]) -> Rows:
    """Set the scope of what passes between models of one architecture apart.

    Such rows are no `pairing`, which is the unit of claims about architectures.
    """
    return [
        {name: value for name, value in row.items() if name != "pairing"}
        | {"scope": SAME_ARCHITECTURE}
        if row["scope"] == ACROSS and (str(row["donor"]), str(row["receiver"])) in kin
        else row
        for row in rows
    ]


def with_holm(rows: Rows) -> Rows:
    """Correct p over donors and receivers: own directions apart from mapped ones."""
    families: dict[tuple[object, ...], list[int]] = {}
    for place, row in enumerate(rows):
        key = (row["scope"], row["protocol"], row["fit_on"])
        families.setdefault(key, []).append(place)
    fixed = [dict(row) for row in rows]
    for places in families.values():
        raw = [float(str(rows[place].get("p", "nan"))) for place in places]
        for place, p in zip(places, holm(raw), strict=True):
            fixed[place]["p_holm"] = p
    return fixed


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs; where a stage of a pair is missing, what needs it lacks it.

    Raises:
        UserError: No pair has a folder or missed a gate, or a file does not fit the others.
        StoreError: Stored states are damaged or lack a question.
    """
    folders, seed = context.folders, context.seed
    pairs = list(dict.fromkeys(pair for of_stage in folders.values() for pair in of_stage))
    # Harmful how-to, which chat refuses, is a kind of its own.
    asked = pd.DataFrame(
        question_row(prompt) | ({"kind": "harmful_howto"} if is_harmful(prompt) else {})
        for prompt in read_prompts(context.files["questions"])
    )
    joint: dict[str, Rows] = {}
    edits: list[Judged] = []
    for pair in pairs:
        own = {stage: of_stage[pair] for stage, of_stage in folders.items() if pair in of_stage}
        files = read_pair(pair, own, asked)
        tables, found = pair_tables(files, seed=seed)
        edits += found
        for name, rows in tables.items():
            joint[name] = joint.get(name, []) + rows
        counts = ", ".join(f"{len(rows)} rows of {name}" for name, rows in tables.items() if rows)
        print(f"misalignment {pair}: {counts or 'no rows'}")
        if files.missing:
            why = files.missed or "its job failed"
            print(f"misalignment {pair}: without {', '.join(files.missing)}: {why}")
    marked = first_missed(one for of_stage in folders.values() for one in of_stage.values())
    if not any(joint.values()) and marked is None:
        raise UserError(
            f"misalignment_tables: none of {', '.join(pairs) or '(no pairs)'} has a "
            f"folder of {', '.join(folders)}; see the logs of these rules"
        )
    file = context.files["maps"] / "maps.csv"
    # Where their job failed there are none.
    maps = (read_table(file) if file.is_file() else pd.DataFrame()).reindex(
        columns=COLUMNS["ridge_maps"]
    )
    same = maps[maps["same_architecture"].eq(True)]
    kin = set(zip(same["donor"].astype(str), same["receiver"].astype(str), strict=True))
    rows = over_pairs(joint, edits, pairs=pairs, kin=kin, seed=seed)
    tables = {name: pd.DataFrame(rows[name]).reindex(columns=of) for name, of in COLUMNS.items()}
    (headline,) = (pd.read_csv(context.published / name) for name in STUDY.published)
    names = list(STUDY.table("misalignment_published").names)
    own = headline.loc[headline["paper"] == "misalignment_directions", names]
    return {**tables, "ridge_maps": maps, "misalignment_published": own.reset_index(drop=True)}
