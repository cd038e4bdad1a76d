"""Code tracking: a hash over a module's import closure inside the package.

Snakemake reruns a job when a `params` value changes but does not see the modules a script
imports. `code("stages.extract")` in `params` closes that gap: it changes when any code that
the stage can reach changes, and not for comments, docstrings, formatting or file times.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def code(*modules: str) -> str:
    """Return a short hash of the modules and of all they import from the package.

    Args:
        *modules: names below `actshift`, such as "stages.extract".

    Returns:
        16 hex digits. `ast.dump` differs between Python minors, so an upgrade reruns results.
    """
    names = sorted(set().union(*(closure(module) for module in modules)))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n{_dump(name)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def closure(module: str) -> frozenset[str]:
    """Return the names below `actshift` that importing `module` can reach, itself included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imports(name))
    return frozenset(found)


def _file(module: str) -> Path:
    """Return the file of a module; a package is its `__init__.py`."""
    path = PACKAGE.joinpath(*module.split("."))
    plain = path.with_suffix(".py")
    return plain if plain.is_file() else path / "__init__.py"


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text())


def _imports(module: str) -> list[str]:
    """List the modules named by `from actshift... import ...`, at any depth of the file."""
    names: list[str] = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actshift."):
            source = (node.module or "").removeprefix("actshift.")
            names.append(source)
            inner = [f"{source}.{alias.name}" for alias in node.names]
            names.extend(name for name in inner if _file(name).is_file())
    return names


@cache
def _dump(module: str) -> str:
    tree = ast.parse(_file(module).read_text())
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
