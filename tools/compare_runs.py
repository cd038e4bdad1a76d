"""Are the tables and figures of two runs the same, byte for byte?

    python tools/compare_runs.py BEFORE/results/demo AFTER/results/demo

Prints how many files are equal and names the others; the exit status is 1 where one differs or is
in one run alone. Checksum files and the page are not compared: the page names the time it was made.
"""

import argparse
import sys
from pathlib import Path

FOLDERS = ("tables", "figures")


def files_of(run: Path) -> dict[str, Path]:
    """The files of a run that are compared, by their path inside it.

    Args:
        run: `results/<run>`.
    """
    files = (file for folder in FOLDERS for file in (run / folder).rglob("*"))
    kept = (file for file in files if file.is_file() and file.suffix != ".sha256")
    return {file.relative_to(run).as_posix(): file for file in sorted(kept)}


def differences(before: Path, after: Path) -> tuple[int, list[str]]:
    """Compare two runs.

    Args:
        before: `results/<run>` of one.
        after: of the other.

    Returns:
        Number of equal files, and a line for each other one.
    """
    first, second = files_of(before), files_of(after)
    lines = [f"only in {before}: {name}" for name in first.keys() - second.keys()]
    lines += [f"only in {after}: {name}" for name in second.keys() - first.keys()]
    both = sorted(first.keys() & second.keys())
    changed = [name for name in both if first[name].read_bytes() != second[name].read_bytes()]
    return len(both) - len(changed), sorted(lines) + [f"differs: {name}" for name in changed]


def main() -> None:
    """Compare the runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    asked = parser.parse_args()
    equal, lines = differences(asked.before, asked.after)
    if not equal and not lines:
        sys.exit(f"{asked.before} and {asked.after} hold no tables and no figures")
    print(f"{equal} files are equal, {len(lines)} are not")
    print("\n".join(lines))
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
