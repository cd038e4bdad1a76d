"""What a run measured, missed, failed and cost, as plain values: for run.json and the summary.

Standard library alone: the end of a run must not wait for pandas.
"""

import csv
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from actshift.io.missed import MISSED, Missed, missed_in
from actshift.report.pair_facts import PairFacts
from actshift.studies.contract import Catalogue

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
    """Which pairs each study measured, and which it did not.

    Args:
        run_dir: `results/<run>`.
        pairs: the run's pairs.
        studies: the studies that the config has on.
        catalogue: the studies there are.

    Returns:
        study -> {measured, not_measured}: pair names; for `calibration`, seeds.
    """
    by_study = {}
    for study in studies:
        of = catalogue.studies[study]
        if of.measured:
            asked = [pair.pair for pair in pairs if pair.references or not of.with_references]
            done = [pair for pair in asked if _is_measured(run_dir, pair, of.measured)]
        else:
            asked = done = [folder.name for folder in sorted(run_dir.glob(f"{study}/*"))]
        by_study[study] = {
            "measured": done,
            "not_measured": [name for name in asked if name not in done],
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

    Args:
        run_dir: `results/<run>`.
        pairs: the run's pairs.
        studies: the studies that the config has on.
        catalogue: the studies there are.
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
    """The missed gates that a pair's folders stand for, once each.

    Args:
        run_dir: `results/<run>`.
        pair: its name.
        studies: the studies that the config has on.
        catalogue: the studies there are.
    """
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


def read_failures(status: Path) -> list[dict[str, str]]:
    """What failed jobs left: rule, job, message; a message that is cut off says so.

    Args:
        status: `results/<run>/status`.
    """
    failures = []
    for path in sorted(status.glob("*.json")):
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
            {
                "subject": missed.subject,
                "reason": missed.reason,
                "detail": missed.detail,
                "stage": missed.stage,
            }
            for missed in missed_of_run(run_dir, pairs, studies, catalogue)
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
