"""What a run will import, found in the code itself and imported ahead of it.

Belongs here: reading the imports that stand inside functions (heavy libraries stand nowhere else), so that
nobody keeps a second list of them. Does not belong here: who needs them early (starter.py).
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType


def preload(module_name: str) -> dict[str, str]:
    """Imports a module, and whatever it and the modules of its package import anywhere, also inside functions.

    Returns what could not be imported, with the reason: extras that are not installed, as a rule.
    Raises: whatever importing the module itself raises.
    """
    importlib.import_module(module_name)
    package = module_name.partition(".")[0] + "."
    failed: dict[str, str] = {}
    read: set[str] = set()
    while waiting := [name for name in sorted(sys.modules) if name.startswith(package) and name not in read]:
        read.update(waiting)
        for name in waiting:
            for wanted in [*_files_of(sys.modules[name]), *late_imports(sys.modules[name])]:
                try:
                    _import(wanted)
                except Exception as error:
                    failed[wanted] = repr(error)
    if numba := sys.modules.get("numba"):
        numba.njit(lambda number: number)(1)  # loads, at its first use, what it knows of types: 0.4 s, and no thread
    return failed


def _files_of(module: ModuleType) -> list[str]:
    """The modules of a package below the top one: some are found by looking what is there (stages, formats)."""
    if "." not in module.__name__:
        return []
    return [f"{module.__name__}.{each.name}" for each in pkgutil.iter_modules(getattr(module, "__path__", ()))]


def late_imports(module: ModuleType) -> list[str]:
    """Dotted names that the functions of a module import; `a.b.c` for `from a.b import c`, be c a module or not."""
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        return []
    names: set[str] = set()
    for function in ast.walk(ast.parse(Path(file).read_bytes())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    names.update(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return sorted(names)


def _import(dotted: str) -> None:
    """As `from a.b import c` does it: c may be a module or a name in one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        parent, _, name = dotted.rpartition(".")
        if not parent or error.name != dotted:
            raise
        getattr(importlib.import_module(parent), name)
