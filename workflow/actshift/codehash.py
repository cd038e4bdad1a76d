"""Code tracking: a hash over a module's import closure inside the package.

Snakemake reruns a job when a `params` value changes but does not see the modules a script
imports, and takes a script for changed whenever its file is newer than the results, as all are
after a checkout. `code("engine.extract")` in `params` replaces that: it changes when any code that
the stage can reach changes, or the script that calls it, and not for comments, docstrings,
formatting or file times. The profiles therefore leave out Snakemake's own `code` trigger.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"


def code(*modules: str) -> str:
    """Return a short hash of the modules, of all they import and of the scripts that call them.

    Args:
        *modules: names below `actshift`, such as "engine.extract".

    Returns:
        16 hex digits. `ast.dump` differs between Python minors, so an upgrade reruns results.
    """
    names = sorted(set().union(*(closure(module) for module in modules)))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n{_dump(_file(name))}\n".encode())
    for script in sorted(SCRIPTS.glob("*.py")):
        if set(modules) & set(_imports(script)):
            digest.update(f"scripts/{script.name}\n{_dump(script)}\n".encode())
    return digest.hexdigest()[:16]


def module_of(function: str) -> str:
    """Return the module below `actshift` of a function called `actshift.module:function`."""
    return function.partition(":")[0].removeprefix("actshift.")


@cache
def closure(module: str) -> frozenset[str]:
    """Return the names below `actshift` that importing `module` can reach, itself included."""
    modules: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in modules:
            modules.add(name)
            waiting.extend(_imports(_file(name)))
    return frozenset(modules)


def _file(module: str) -> Path:
    """Return the file of a module; a package is its `__init__.py`."""
    path = PACKAGE.joinpath(*module.split("."))
    plain = path.with_suffix(".py")
    return plain if plain.is_file() else path / "__init__.py"


@cache
def _imports(file: Path) -> tuple[str, ...]:
    """List the modules named by `from actshift... import ...`, at any depth of the file."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actshift."):
            source = (node.module or "").removeprefix("actshift.")
            names.append(source)
            inner = [f"{source}.{alias.name}" for alias in node.names]
            names.extend(name for name in inner if _file(name).is_file())
    return tuple(names)


@cache
def _dump(file: Path) -> str:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring (or a bare string used as a comment)."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
