"""What a run was asked for, measured, missed, failed and cost, as plain values.

For run.json, the page and the summary. No pandas: the end of a run must not wait for it.
"""

import csv
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from actshift.io.manifest import NAME, read_manifest
from actshift.io.missed import MISSED, Missed, missed_in
from actshift.models.files import count_parameters
from actshift.models.sources import read_model_config, shape_in
from actshift.studies.contract import Catalogue
from actshift.vocab import ROLES, counted

#: Start of the source of a model that the run trains itself.
_ZOO = "zoo:"
#: Family and variant of such a source; sizes do not depend on the seed.
_ZOO_SOURCE = re.compile(r"zoo:(\w+)/(\w+)")


@dataclass(frozen=True, slots=True)
class PairFacts:
    """One pair as the page introduces it; None where no checkpoint has been made.

    `base` and `tuned` are sources, with the commit of a hub model. `architecture` is the
    `model_type` of the config, `parameters` counts the stored ones of the tuned model (tied
    matrices once), `dtype` is that of the forward pass.
    """

    pair: str
    base: str
    tuned: str
    architecture: str | None
    parameters: int | None
    blocks: int | None
    d_model: int | None
    dtype: str | None
    references: tuple[str, ...] = ()

    @property
    def trained_here(self) -> bool:
        """Whether both models are of the zoo."""
        return self.base.startswith(_ZOO) and self.tuned.startswith(_ZOO)

    def record(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return asdict(self) | {"trained_here": self.trained_here}


def pair_facts(run_dir: Path, config: Mapping[str, Any]) -> list[PairFacts]:
    """The facts of the config's pairs that `only` leaves in, from their checkpoints.

    Raises:
        UserError: a manifest is damaged.
    """
    only = [name.strip() for name in str(config.get("only") or "").split(",") if name.strip()]
    pairs = (pair for pair in config.get("pairs", ()) if not only or str(pair["name"]) in only)
    return [_facts_of(run_dir, pair) for pair in pairs]


def models_line(pairs: Sequence[PairFacts]) -> str:
    """Say in one or two sentences how many pairs there are and of what kind; empty without any."""
    trained = [pair for pair in pairs if pair.trained_here]
    others = [pair for pair in pairs if not pair.trained_here]
    sentences = []
    if trained:
        sentences.append(
            f"{_pairs(trained)}, trained from scratch by this run in a made-up language: "
            "a test bed, not language models."
        )
    if others:
        sentences.append(f"{_pairs(others)}, given to this run and not trained by it.")
    return " ".join(sentences)


def model_cells(pairs: Sequence[PairFacts]) -> list[dict[str, str]]:
    """The pairs as rows of text, column name -> cell; a column without any text is left out."""
    rows = [
        {
            "Pair": pair.pair,
            "Base": pair.base,
            "Tuned": pair.tuned,
            "References": ", ".join(pair.references),
            "Architecture": pair.architecture or "",
            "Parameters": "" if pair.parameters is None else count_text(pair.parameters),
            "Blocks": "" if pair.blocks is None else str(pair.blocks),
            "d_model": "" if pair.d_model is None else str(pair.d_model),
            "dtype": pair.dtype or "",
        }
        for pair in pairs
    ]
    filled = {name for row in rows for name, cell in row.items() if cell}
    return [{name: cell for name, cell in row.items() if name in filled} for row in rows]


def count_text(count: int) -> str:
    """A number of parameters in words: `76 thousand`, `0.29 million`, `7.62 billion`."""
    if count < 10**5:
        return f"{round(count / 1000, 1):g} thousand"
    unit, name = (10**9, "billion") if count >= 999_500_000 else (10**6, "million")
    return f"{float(f'{count / unit:.3g}' if count >= 10**6 else f'{count / unit:.2g}'):g} {name}"


def _facts_of(run_dir: Path, pair: Mapping[str, Any]) -> PairFacts:
    name = str(pair["name"])
    # The tuned model first: it is the one that is asked about.
    folders = {role: run_dir / "checkpoints" / f"{name}.{role}" for role in reversed(ROLES)}
    facts = {
        role: read_manifest(folder)["facts"] if (folder / NAME).is_file() else None
        for role, folder in folders.items()
    }
    sources = (_zoo_folder(run_dir, pair.get(role)) for role in folders)
    trained = [folder for folder in sources if folder is not None]
    counts = map(count_parameters, [*folders.values(), *trained])
    known = facts["tuned"] or facts["base"] or _trained_facts(trained)
    return PairFacts(
        pair=name,
        base=_source(facts["base"], pair.get("base")),
        tuned=_source(facts["tuned"], pair.get("tuned")),
        architecture=known.get("family"),
        parameters=next((count for count in counts if count is not None), None),
        blocks=known.get("n_layers"),
        d_model=known.get("d_model"),
        dtype=known.get("dtype"),
        references=tuple(pair.get("references") or ()),
    )


def _zoo_folder(run_dir: Path, source: object) -> Path | None:
    """Folder of a zoo model with weights: one that missed its gate has no checkpoint folder."""
    recipe = _ZOO_SOURCE.match(str(source))
    configs = run_dir.glob(f"zoo/{recipe[1]}-*/{recipe[2]}/config.json") if recipe else ()
    return next((file.parent for file in sorted(configs)), None)


def _trained_facts(folders: Sequence[Path]) -> dict[str, Any]:
    """Architecture and shape of the first zoo model that is there."""
    if not folders:
        return {}
    config = read_model_config(folders[0])
    blocks, width = shape_in(config, name=str(folders[0]))
    return {"family": config.get("model_type"), "n_layers": blocks, "d_model": width}


def _source(facts: Mapping[str, Any] | None, configured: object) -> str:
    """Source of a model, at the commit that a hub revision resolved to."""
    if facts is None:
        return str(configured or "")
    source, commit = str(facts.get("source", configured)), facts.get("revision")
    return f"{source.split('@')[0]}@{str(commit)[:12]}" if commit else source


def _pairs(pairs: Sequence[PairFacts]) -> str:
    """`4 pairs of models of 0.26 to 0.31 million parameters`."""
    return f"{counted(len(pairs), 'pair')} of models{sizes_text(pairs)}"


def sizes_text(pairs: Sequence[PairFacts]) -> str:
    """` of 0.26 to 0.31 million parameters`; empty where no checkpoint has been made."""
    counts = sorted(pair.parameters for pair in pairs if pair.parameters is not None)
    if not counts:
        return ""
    low, high = count_text(counts[0]), count_text(counts[-1])
    if low == high:
        return f" of {low} parameters"
    number, unit = low.split()
    start = number if high.endswith(unit) else low
    return f" of {start} to {high} parameters"


#: Version of run.json; a reader refuses a newer one.
SCHEMA = 1
#: A source of the zoo: its folder is named by family, size and seed.
_ZOO_MODEL = re.compile(r"zoo:(?P<family>\w+)/\w+(?:@(?P<seed>\d+))?")


def timings(run_dir: Path) -> list[dict[str, str | float]]:
    """What Snakemake measured of each job: seconds and peak memory in MB; -1 where it could not."""
    rows: list[dict[str, str | float]] = []
    for path in sorted(run_dir.glob("timings/**/*.tsv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for record in csv.DictReader(stream, delimiter="\t"):
                job = path.relative_to(run_dir / "timings").with_suffix("").as_posix()
                rows.append({"job": job, "seconds": _float(record.get("s")),
                             "peak_mb": _float(record.get("max_rss"))})  # fmt: skip
    return rows


def seconds_by_rule(run_dir: Path) -> dict[str, float]:
    """Seconds of all jobs of each rule, longest first; jobs side by side count in full."""
    seconds: dict[str, float] = {}
    for row in timings(run_dir):
        rule = str(row["job"]).split("/")[0]
        seconds[rule] = seconds.get(rule, 0.0) + max(float(row["seconds"]), 0.0)
    return {
        rule: round(spent, 1)
        for rule, spent in sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    }


def bytes_by_folder(run_dir: Path) -> dict[str, int]:
    """Bytes of the run's folders, largest first; a file with several names counts once.

    Links count as links: weights of the user's own models are not the run's.
    """
    seen: set[tuple[int, int]] = set()
    sizes: dict[str, int] = {}
    for part in sorted(run_dir.iterdir()):
        sizes[part.name] = sum(_sizes(part, seen))
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def measured_by_study(
    run_dir: Path, pairs: Sequence[PairFacts], studies: Sequence[str], catalogue: Catalogue
) -> dict[str, dict[str, list[str]]]:
    """Which pairs each study measured, and which it did not; for `calibration`, seeds.

    Returns study -> {measured, not_measured}: names.
    """
    by_study = {}
    for study in studies:
        spec = catalogue.studies[study]
        if spec.measured:
            names = [pair.pair for pair in pairs if pair.references or not spec.with_references]
            measured = [pair for pair in names if _is_measured(run_dir, pair, spec.measured)]
        else:
            names = measured = [folder.name for folder in sorted(run_dir.glob(f"{study}/*"))]
        by_study[study] = {
            "measured": measured,
            "not_measured": [name for name in names if name not in measured],
        }
    return by_study


def studies_seen(run_dir: Path, catalogue: Catalogue) -> list[str]:
    """The studies that left a pair's folder, for a run that has no record yet."""
    left = {folder.name for folder in run_dir.glob("pairs/*/*")}
    return [name for name, of in catalogue.studies.items() if left.intersection(of.measured)]


def missed_of_run(
    run_dir: Path, pairs: Sequence[PairFacts], studies: Collection[str], catalogue: Catalogue
) -> list[Missed]:
    """The gates that a run missed, once each: of its pairs, their zoo models and its studies.

    What an earlier run of the same name left of other pairs and studies does not count.
    """
    folders = dict.fromkeys(folder for pair in pairs for folder in _zoo_folders(run_dir, pair))
    trained = [missed for folder in folders if (missed := missed_in(folder)) is not None]
    of_pairs = [
        missed
        for pair in pairs
        for missed in missed_of_pair(run_dir, pair.pair, studies, catalogue)
    ]
    return list(dict.fromkeys([*trained, *of_pairs]))


def missed_of_pair(
    run_dir: Path, pair: str, studies: Collection[str], catalogue: Catalogue
) -> list[Missed]:
    """The missed gates that a pair's folders stand for, once each."""
    models = _folders(run_dir / "activations", f"{pair}.")
    folders = [
        *_folders(run_dir / "checkpoints", f"{pair}."),
        *(store for model in models for store in _folders(model)),
        *_folders(run_dir / "pairs" / pair),
    ]
    markers = (missed for folder in folders if (missed := missed_in(folder)) is not None)
    return list(
        dict.fromkeys(
            missed
            for missed in markers
            if catalogue.study_of_stage(missed.stage) in (None, *studies)
        )
    )


def _zoo_folders(run_dir: Path, pair: PairFacts) -> Iterator[Path]:
    """Folders of the zoo models of a pair's family and training seed."""
    for source in (pair.base, pair.tuned):
        recipe = _ZOO_MODEL.fullmatch(source)
        if recipe:
            pattern = f"zoo/{recipe['family']}-*-s{recipe['seed'] or 0}/*"
            yield from sorted(folder for folder in run_dir.glob(pattern) if folder.is_dir())


def read_failures(status: Path, *, by_time: bool = False) -> list[dict[str, str]]:
    """What failed jobs left: rule, job, message; by name, or in the order in which they failed.

    A message that is cut off says so: a full disk may have done it.
    """
    files = sorted(status.glob("*.json"))
    failures = []
    for path in sorted(files, key=lambda file: file.stat().st_mtime_ns) if by_time else files:
        try:
            failures.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            message = f"its message in {path} is not readable; is the disk full?"
            failures.append({"rule": path.stem, "job": "", "message": message})
    return failures


def run_record(
    run_dir: Path,
    *,
    pairs: Sequence[PairFacts],
    studies: Sequence[str],
    catalogue: Catalogue,
    failures: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Pairs, what was measured, missed and failed, time and disk, as JSON values."""
    return {
        "pairs": [pair.record() for pair in pairs],
        "studies": measured_by_study(run_dir, pairs, studies, catalogue),
        "missed_gates": [
            asdict(missed) for missed in missed_of_run(run_dir, pairs, studies, catalogue)
        ],
        "failures": [dict(failure) for failure in failures],
        "seconds_by_rule": seconds_by_rule(run_dir),
        "bytes_by_folder": bytes_by_folder(run_dir),
    }


def _is_measured(run_dir: Path, pair: str, names: Sequence[str]) -> bool:
    folders = [run_dir / "pairs" / pair / name for name in names]
    return all(folder.is_dir() and not (folder / MISSED).is_file() for folder in folders)


def _folders(parent: Path, start: str = "") -> list[Path]:
    """Folders below a folder whose name begins so; empty where it is not there."""
    if not parent.is_dir():
        return []
    return sorted(
        folder for folder in parent.iterdir() if folder.name.startswith(start) and folder.is_dir()
    )


def _sizes(path: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    """Bytes of each file below a path that was not counted yet; what vanishes meanwhile is 0."""
    places = [path, *(Path(folder, name) for folder, _, names in os.walk(path) for name in names)]
    for place in places:
        with suppress(OSError):
            stat = place.lstat()
            if not S_ISDIR(stat.st_mode) and (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                yield stat.st_size


def _float(text: str | None) -> float:
    """A number, or -1 where Snakemake was too late to measure."""
    try:
        return float(text or "-1")
    except ValueError:
        return -1.0
