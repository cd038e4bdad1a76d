"""Stage claims: tables of a run, claims of every study -> claims.csv, claims_by_pair.csv."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from actshift.claims.file import Claim, parse_claims
from actshift.claims.verdicts import claims_table, decide, units_table
from actshift.errors import UserError
from actshift.io.missed import missed_in
from actshift.io.tables import read_table, write_table
from actshift.studies.registry import CATALOGUE


def make_claims(
    tables: Sequence[Path],
    claims: Sequence[Path],
    out: Path,
    *,
    pairs: Sequence[str],
    folders: Mapping[str, Mapping[str, Path]] | None = None,
    larger_run: str = "",
) -> pd.DataFrame:
    """Decide every published claim from the tables that exist, and return the table of claims.

    Args:
        tables: CSV files, each in a folder named after its study.
        claims: files of claims, in the order of the table.
        out: folder for `claims.csv` and `claims_by_pair.csv`.
        pairs: the run's pairs; one without rows reads "not measured".
        folders: study -> folder of each pair's numbers; a missed gate there is the reason why.
        larger_run: command of a larger run, for claims that this one is too small for.

    Returns:
        The table of claims.

    Raises:
        UserError: a claims file is wrong, or a table is damaged.
    """
    wanted = read_claims(claims)
    rows = {(path.parent.name, path.stem): _rows(path) for path in tables}
    units = decide(wanted, rows, pairs, _missed(wanted, folders or {}))
    table = claims_table(wanted, units, larger_run)
    write_table(units_table(units), out / "claims_by_pair.csv")
    write_table(table, out / "claims.csv")
    counts = Counter(table["verdict"])
    print(f"claims {out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return table


def _missed(
    claims: Sequence[Claim], folders: Mapping[str, Mapping[str, Path]]
) -> dict[tuple[str, str], str]:
    """The missed gate that leaves a claim undecided, by (id of the claim, pair)."""
    of_study = {
        (study, pair): missed.reason
        for study, pairs in folders.items()
        for pair, folder in pairs.items()
        if (missed := missed_in(folder)) is not None
    }
    return {
        (claim.id, pair): reason
        for claim in claims
        for (study, pair), reason in of_study.items()
        if CATALOGUE.study_of(claim.study, claim.table) == study
    }


def claims_file(study: str) -> Path:
    """Return the file of a study's claims."""
    return Path(__file__).resolve().parents[1] / "studies" / study / "claims.yaml"


def read_claims(files: Sequence[Path]) -> list[Claim]:
    """Read and check claims files; a UserError names the claim and the key that are wrong."""
    claims: list[Claim] = []
    for file in files:
        origin = str(Path(*file.parts[-2:]))
        claims += parse_claims(_yaml(file), origin=origin, others=claims)
    return claims


def _yaml(path: Path) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it belongs to the repository") from None
    except YAMLError as error:
        raise UserError(f"{path}: no YAML: {' '.join(str(error).split())}") from None


def _rows(path: Path) -> pd.DataFrame:
    """A table whose names are text: a pair may be called "7"."""
    table = read_table(path)
    return table.astype({"pair": str}) if "pair" in table.columns else table
