"""The import rule and the size limits, read from the AST; torch-free stages, from sys.modules."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "workflow" / "actshift"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
CODE = sorted(
    [*MODULES, *SCRIPTS, *(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))

WORDS = {"vocab", "errors", "lanes", "pairs", "validation"}
PARTS = {"maths", "prompts", "models", "hooks", "io"}
COMPOSERS = {"zoo", "stages", "studies", "report"}
# What a package may import beside the words and itself. Packages that are not named here (the
# command line, the plan, the configuration) stand above all and may import anything.
MAY_IMPORT = {
    "vocab": set(),
    "errors": set(),
    "validation": set(),
    "lanes": set(),
    "pairs": set(),
    "paths": set(),
    **{part: {"paths"} for part in PARTS},
    **{composer: {"paths", "config", "plan"} | PARTS | COMPOSERS for composer in COMPOSERS},
}
TORCH = {"torch", "transformers", "peft", "accelerate", "bitsandbytes"}
# Third-party libraries that a package must not name. `tokenizers` (trained in the zoo) is no model.
MUST_NOT_NAME = {
    **{name: TORCH for name in ("maths", "io", "prompts", "studies", "report")},
    **{name: TORCH - {"torch"} for name in ("hooks", "zoo", "stages", "commands")},
}
# Stages whose jobs need only numpy: they must start like it.
TORCH_FREE = (
    "prompts",
    "checkpoint",
    "rank_audit",
    "aggregate",
    "claims",
    "figures",
    "report",
    "spectral_gap",
    "spectral_gap_tables",
    "calibration_tables",
    "judge",
    "ablation_tables",
    "refusal_tables",
    "localization_tables",
    "misalignment_tables",
    "ridge_maps",
)
# Modules that the Snakefile imports; `snakemake -n` must stay quick.
PARSE_TIME = (
    "codehash",
    "config",
    "device",
    "errors",
    "plan",
    "plan_files",
    "plan_folders",
    "plan_gates",
    "plan_misalignment",
    "paths",
    "validation",
    "studies.calibration.files",
    "studies.ablation.tables.columns",
    "studies.localization.tables.columns",
    "studies.misalignment.tables.columns",
)
# The one module that is handed the injected object: what all adapters do around their stage.
TAKES_SNAKEMAKE = {PACKAGE / "adapter.py"}
# Arguments that need no annotation.
BOUND = {"self", "cls"}


def name(path: Path) -> str:
    """Return a short name for test ids and messages."""
    return str(path.relative_to(ROOT))


def part(path: Path) -> str:
    """Return the package or top-level module below actshift that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path) -> Iterator[tuple[str, list[str], int]]:
    """Yield (module, names taken from it, level) for each import at any depth of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, [], 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", [alias.name for alias in node.names], node.level


def third_party(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _, level in imports(path) if level == 0}


def own(path: Path) -> set[str]:
    """Return the parts of actshift that a file imports."""
    modules = (module.split(".") for module, _, _ in imports(path))
    return {parts[1] for parts in modules if parts[0] == "actshift" and len(parts) > 1}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_downwards(path: Path) -> None:
    allowed = MAY_IMPORT.get(part(path))
    if allowed is not None:
        assert own(path) - allowed - WORDS - {part(path)} == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_models_names_model_libraries(path: Path) -> None:
    assert third_party(path) & MUST_NOT_NAME.get(part(path), set()) == set()


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) == "maths"], ids=name)
def test_maths_is_pure(path: Path) -> None:
    libraries = third_party(path) - set(sys.stdlib_module_names) - {"actshift"}
    assert libraries <= {"numpy", "scipy", "statsmodels", "jaxtyping"}
    assert third_party(path) & {"os", "pathlib", "io", "json", "csv", "subprocess"} == set()


@pytest.mark.parametrize("path", CODE, ids=name)
def test_imports_are_seen_by_code_tracking(path: Path) -> None:
    """`codehash` follows `from actshift.x import y`; any other form would go untracked."""
    for module, taken, level in imports(path):
        assert level == 0, "relative import"
        assert taken or module.split(".")[0] != "actshift", f"import {module}"
        assert module != "actshift" or taken == ["__version__"], f"from actshift import {taken}"
        assert "*" not in taken


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=name)
def test_packages_import_nothing(path: Path) -> None:
    assert list(imports(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_adapters_see_snakemake(path: Path) -> None:
    if path in TAKES_SNAKEMAKE:
        return
    seen = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
    seen |= {node.arg for node in ast.walk(tree(path)) if isinstance(node, ast.arg)}
    assert "snakemake" not in seen | third_party(path)


def test_there_are_scripts_and_modules_to_check() -> None:
    assert len(SCRIPTS) >= 5
    assert {part(path) for path in MODULES} >= WORDS | PARTS | COMPOSERS


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_adapters_are_thin(path: Path) -> None:
    """Editing an adapter reruns its rule even for a comment, so there is nothing in it to edit."""
    assert len(path.read_text().splitlines()) <= 25
    kinds = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While)
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", [*CODE, *TESTS], ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_everything_is_annotated(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in BOUND]
            assert bare == [], node.name
            assert node.returns is not None, node.name


def test_rules_and_common_stay_small() -> None:
    assert len((ROOT / "workflow" / "common.smk").read_text().splitlines()) <= 120


def loaded_by(module: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter holds after importing a module."""
    program = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("stage", TORCH_FREE)
def test_analysis_starts_without_torch(stage: str) -> None:
    assert loaded_by(f"actshift.stages.{stage}") & TORCH == set()


@pytest.mark.parametrize("package", ["maths", "studies", "report"])
def test_no_module_of_the_analysis_loads_torch(package: str) -> None:
    modules = [p for p in MODULES if part(p) == package and p.name != "__init__.py"]
    assert modules
    dotted = [".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in modules]
    assert loaded_by(", ".join(dotted)) & TORCH == set()


def test_parsing_the_workflow_imports_nothing_heavy() -> None:
    heavy = TORCH | {"numpy", "pandas", "scipy", "sklearn", "matplotlib", "zarr"}
    assert loaded_by(", ".join(f"actshift.{module}" for module in PARSE_TIME)) & heavy == set()
