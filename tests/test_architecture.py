"""Levels, imports, sizes and annotations, read from the AST; what loads, from a fresh interpreter.

Every rule is one test that looks at every file, and its message names the file.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from actshift.studies.registry import CATALOGUE, STUDIES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "workflow" / "actshift"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
CODE = [*MODULES, *SCRIPTS, *(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

#: From the bottom up. A part imports itself and what lies below; words import each other too.
LEVELS: tuple[set[str], ...] = (
    {
        *("vocab", "errors", "validation", "paths", "codehash", "edits", "patching"),
        *("packing", "random_streams", "studies/contract"),
    },
    {"maths", "io", "prompts", "models", "hooks"},
    {"zoo"},
    {"claims"},
    {"report"},
    {"engine"},
    {f"studies/{study}" for study in STUDIES},
    {"studies/registry"},
    {"config"},
    {"plan"},
    {"stages"},
    {"commands", "job", "partial"},
    {"cli"},
)
LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}

MODEL_LIBRARIES = {"transformers", "peft", "accelerate", "bitsandbytes"}
TORCH = {"torch", *MODEL_LIBRARIES}
HEAVY = TORCH | {"numpy", "pandas", "scipy", "sklearn", "matplotlib", "zarr", "pyarrow", "xarray"}
#: Third-party libraries that a part must not name. `tokenizers` (trained in the zoo) is no model.
MUST_NOT_NAME = {
    **dict.fromkeys(("maths", "io", "prompts", "claims", "report"), TORCH),
    **dict.fromkeys(("hooks", "zoo", "engine", "stages", "commands"), MODEL_LIBRARIES),
    **{f"studies/{study}": MODEL_LIBRARIES for study in STUDIES},
}
#: Stages whose jobs need no torch, beside what the registry names: they must start without it.
TORCH_FREE = (
    *(f"stages.{name}" for name in ("prompts", "checkpoint", "claims", "figures", "report")),
    *("stages.tables", "partial"),
    *("studies.rank_audit.stage", "studies.spectral_gap.stage", "studies.ablation.judge"),
    *("studies.misalignment.stages.ridge_maps", "studies.misalignment.judge"),
    "studies.localization.gate",
)
#: Modules that the Snakefile imports; `snakemake -n` must stay quick.
PARSE_TIME = ("codehash", "config.schema", "errors", "paths", "studies.registry")
#: The one module that is handed the injected object: what all scripts do around their stage.
TAKES_SNAKEMAKE = PACKAGE / "job.py"
#: Imported inside a function: a job that finds its store in the cache loads no model.
LATE = ("engine.extract", "engine.extract_stream")
MAX_LINES, MAX_PARAMETERS = 60, 7
#: Functions with more parameters. This list may only shrink.
MANY_PARAMETERS = {
    "tests/reference/misalignment_files.py _lane",
    "tests/reference/synthetic_pair.py __init__",
    "tests/report/synthetic_causal.py _sweep_row",
    "tests/report/synthetic_tables.py _rate",
    "tests/zoo/test_zoo_gates.py cell",
    "workflow/actshift/engine/intervene.py intervene",
    "workflow/actshift/studies/contract.py table",
}


def name(path: Path) -> str:
    """The file as messages name it."""
    return path.relative_to(ROOT).as_posix()


def part_of(module: str) -> str:
    """The part of the package that a module below actshift belongs to."""
    first, *rest = module.split(".")
    return f"studies/{rest[0]}" if first == "studies" and rest else first


def module_of(path: Path) -> str:
    """The name of a file below actshift; a package is its `__init__.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def part(path: Path) -> str:
    return part_of(module_of(path))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@cache
def imports(path: Path) -> list[tuple[str, list[str], int]]:
    """(module, names taken from it, level) for each import at any depth of a file."""
    every = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            every += [(alias.name, [], 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            every.append((node.module or "", [alias.name for alias in node.names], node.level))
    return every


def third_party(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _, level in imports(path) if level == 0}


def imported(path: Path) -> set[str]:
    """The modules below actshift that a file imports."""
    names = {module for module, _, _ in imports(path) if module.startswith("actshift.")}
    return {module.removeprefix("actshift.") for module in names}


def at_run_time(path: Path) -> set[str]:
    """The same without what is imported for annotations alone."""
    kept = ast.parse(path.read_text())
    for node in ast.walk(kept):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            node.body = [] if node.test.id == "TYPE_CHECKING" else node.body
    modules = (node.module or "" for node in ast.walk(kept) if isinstance(node, ast.ImportFrom))
    return {m.removeprefix("actshift.") for m in modules if m.startswith("actshift.")}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """All parameters but self, cls and the starred ones."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def offenders(paths: list[Path], broken: Callable[[Path], object]) -> dict[str, object]:
    """What is wrong, by file; files where nothing is are left out."""
    return {name(path): wrong for path in paths if (wrong := broken(path))}


def test_there_is_something_to_check() -> None:
    assert len(SCRIPTS) >= 5
    assert {part(path) for path in MODULES} - {"", "studies"} == set(LEVEL), "a part has no level"


def test_imports_point_downwards_and_no_study_imports_another() -> None:
    def upward(path: Path) -> list[str]:
        level = LEVEL.get(part(path), 0)
        return [
            module
            for module in sorted(imported(path))
            if part_of(module) != part(path) and LEVEL[part_of(module)] >= max(level, 1)
        ]

    assert offenders(MODULES, upward) == {}


def test_there_is_no_cycle_of_imports() -> None:
    below = {module_of(path): at_run_time(path) for path in MODULES}
    below[LATE[0]].remove(LATE[1])
    finished: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cycle: {' -> '.join((*path, module))}"
        if module not in finished:
            for other in sorted(below.get(module, ())):
                follow(other, (*path, module))
            finished.add(module)

    for module in below:
        follow(module, ())


def test_only_models_names_model_libraries() -> None:
    assert offenders(MODULES, lambda p: third_party(p) & MUST_NOT_NAME.get(part(p), set())) == {}


def test_maths_is_pure() -> None:
    pure = {"numpy", "scipy", "statsmodels", "jaxtyping", "actshift"}
    impure = {"os", "pathlib", "io", "json", "csv", "subprocess"}
    allowed = (pure | set(sys.stdlib_module_names)) - impure
    maths = [path for path in MODULES if part(path) == "maths"]
    assert offenders(maths, lambda path: third_party(path) - allowed) == {}


def test_imports_are_seen_by_code_tracking() -> None:
    """`codehash` follows `from actshift.x import y`; any other form would go untracked."""

    def untracked(path: Path) -> list[str]:
        return [
            module
            for module, taken, level in imports(path)
            if level
            or "*" in taken
            or (module.split(".")[0] == "actshift" and not taken)
            or (module == "actshift" and taken != ["__version__"])
        ]

    assert offenders(CODE, untracked) == {}


def test_packages_import_nothing() -> None:
    assert offenders([path for path in MODULES if path.name == "__init__.py"], imports) == {}


def test_only_scripts_see_snakemake() -> None:
    def sees(path: Path) -> bool:
        names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(tree(path)) if isinstance(node, ast.arg)}
        return "snakemake" in names | third_party(path)

    assert offenders([path for path in MODULES if path != TAKES_SNAKEMAKE], sees) == {}


def test_scripts_are_thin() -> None:
    """Editing a script reruns its rule even for a comment, so there is nothing in it to edit."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While)

    def thick(path: Path) -> bool:
        inside = any(isinstance(node, kinds) for node in ast.walk(tree(path)))
        return inside or len(path.read_text().splitlines()) > 25

    assert offenders(SCRIPTS, thick) == {}
    assert len((ROOT / "workflow" / "common.smk").read_text().splitlines()) <= 120, "common.smk"


def test_functions_stay_small() -> None:
    def long(path: Path) -> list[str]:
        sizes = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions(path)}
        return [f"{function}: {size}" for function, size in sizes.items() if size > MAX_LINES]

    assert offenders([*CODE, *TESTS], long) == {}


def test_functions_take_few_parameters() -> None:
    many = {
        f"{name(path)} {function.name}"
        for path in [*CODE, *TESTS]
        for function in functions(path)
        if len(parameters(function)) > MAX_PARAMETERS
    }
    assert many - MANY_PARAMETERS == set(), f"more than {MAX_PARAMETERS} parameters"
    assert MANY_PARAMETERS - many == set(), "mended or moved: take it out of MANY_PARAMETERS"


def test_everything_is_annotated() -> None:
    def bare(path: Path) -> list[str]:
        return [
            function.name
            for function in functions(path)
            if function.returns is None or any(a.annotation is None for a in parameters(function))
        ]

    assert offenders(MODULES, bare) == {}


def test_folders_and_registry_agree_on_the_studies() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("studies/*/__init__.py")}
    assert folders == set(STUDIES)
    for study, spec in STUDIES.items():
        assert spec.name == study
        for file in ("study.py", "claims.yaml"):
            assert (PACKAGE / "studies" / study / file).is_file(), f"{study}/{file}"
        assert (ROOT / "workflow" / "rules" / f"{study}.smk").is_file(), f"{study}.smk"


def first_load_of(modules: list[str], forbidden: set[str]) -> str:
    """The module that loads a forbidden library, when all are imported into one interpreter."""
    program = (
        "import sys, importlib\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(f'actshift.{module}')\n"
        f"    loaded = {forbidden!r} & {{name.split('.')[0] for name in sys.modules}}\n"
        "    if loaded:\n"
        "        sys.exit(f'{module} loads {sorted(loaded)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stderr.strip()


def test_parsing_the_workflow_and_declaring_a_study_loads_nothing_heavy() -> None:
    plan = [module_of(path) for path in MODULES if part(path) == "plan"]
    studies = [f"studies.{study}.study" for study in STUDIES]
    assert first_load_of([*studies, *PARSE_TIME, *plan], HEAVY) == ""
    light = set(sys.stdlib_module_names) | {"pydantic", "actshift"}
    files = [PACKAGE / "studies" / study / "study.py" for study in STUDIES]
    files += [PACKAGE / "studies" / f"{file}.py" for file in ("contract", "registry")]
    assert offenders(files, lambda path: third_party(path) - light) == {}


def test_tables_figures_and_answers_start_without_torch() -> None:
    named = [
        *(study.join for study in STUDIES.values()),
        *(study.answers.points for study in STUDIES.values() if study.answers),
        *(text for f in CATALOGUE.figures.values() for text in (f.draw, f.seen) if text),
    ]
    modules = {function.partition(":")[0].removeprefix("actshift.") for function in named}
    modules |= {module_of(p) for p in MODULES if part(p) in ("maths", "claims", "report")}
    assert first_load_of(sorted({*modules, *TORCH_FREE}), TORCH) == ""
