"""Code tracking: a hash over a module's import closure inside the package.

Snakemake reruns a job when a `params` value changes but does not see the modules a script
imports, and takes a script for changed whenever its file is newer than the results, as all are
after a checkout. `code("engine.extract")` in `params` replaces that: it changes when any code that
the stage can reach changes, or the script that calls it, and not for comments, docstrings,
formatting or file times. A stage takes its settings from `study.py`, which also says what tables,
figures and page mean: that wording counts only for what composes figures and page from all
studies. The profiles therefore leave out Snakemake's own `code` trigger.
"""

import ast
import hashlib
import json
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"
REGISTRY, CONTRACT = "studies.registry", "studies.contract"
#: Modules that declare a study.
DECLARATION = re.compile(r"studies\.\w+\.study")


def code(*modules: str) -> str:
    """Return a short hash of the modules, of all they import and of the scripts that call them.

    Args:
        *modules: names below `actshift`, such as "engine.extract".

    Returns:
        16 hex digits. `ast.dump` differs between Python minors, so an upgrade reruns results.
    """
    names = sorted(set().union(*(closure(module) for module in modules)))
    composes = REGISTRY in names
    digest = hashlib.sha256()
    for name in names:
        kind = "worded" if composes or not DECLARATION.fullmatch(name) else "bare"
        digest.update(f"{name} {_facts(_file(name))[kind]}\n".encode())
    # A script that finds its stage by name calls the stages of any study.
    called = {*modules, *(CONTRACT for name in modules if name.startswith("studies."))}
    for script in sorted(SCRIPTS.glob("*.py")):
        if called & set(_imports(script)):
            digest.update(f"{script.name} {_facts(script)['worded']}\n".encode())
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


def _imports(file: Path) -> list[str]:
    """List the modules named by `from actshift... import ...`, at any depth of the file."""
    return [name for name in _facts(file)["names"] if _file(name).is_file()]


@cache
def _facts(file: Path) -> dict[str, Any]:
    """Return what a file may import, and hashes of its code with and without wording.

    They are kept beside Python's byte code, and as long as it: until the file's time or size or
    Python changes. Reading every file anew would be most of the time that a dry run takes.
    """
    status = file.stat()
    stamp = [sys.version, status.st_mtime_ns, status.st_size]
    kept = file.parent / "__pycache__" / f"{file.stem}.code.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads(kept.read_text())
        if facts["stamp"] == stamp:
            return facts
    tree = ast.parse(file.read_text())
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actshift."):
            source = (node.module or "").removeprefix("actshift.")
            names += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    facts = {"stamp": stamp, "names": names, "worded": _sha(tree)}
    facts["bare"] = _sha(_WithoutWording().visit(tree))
    with suppress(OSError):  # a package that may not be written to
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(facts))
    return facts


def _sha(tree: ast.AST) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


class _WithoutWording(ast.NodeTransformer):
    """Leaves of a study's declaration what its stages compute with: settings, names of columns."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Drop titles and meanings; of a table's text keep the names."""
        self.generic_visit(node)
        name = _called(node)
        wording = _WORDING.get(name, set())
        node.keywords = [key for key in node.keywords if key.arg not in wording]
        if name == "words":
            return ast.Constant(None)
        if name == "table":
            table, _row, *text = node.args
            node.args = [table, *map(_column_names, text)]
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        """Drop figures."""
        node.elts = [part for part in node.elts if _called(part) != "Figure"]
        return self.generic_visit(node)


#: Keyword arguments that no stage computes with, by what is called.
_WORDING = {"Field": {"description"}, "Study": {"title", "about", "glossary", "figures", "answers"}}


def _called(node: ast.expr) -> str:
    """The plain name of what an expression calls; empty where it is no such call."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _column_names(text: ast.expr) -> ast.expr:
    """The names of columns in the text of a table: what stands before the first bar of a line."""
    if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
        return text
    names = (line.partition("|")[0].strip() for line in text.value.splitlines())
    return ast.Constant("\n".join(names))


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring (or a bare string used as a comment)."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
