"""Which code and which libraries stand behind a stage: what its identity is made of.

A stage's code is its module and every module of its package that it imports, also inside functions; its libraries are
the installed distributions that this code imports. Both are read from the source, without importing or running it.
stage.py, which every stage imports to declare itself, is none of its code: another sentence there is no other result.

Belongs here: that reading. Does not belong here: what a stage is (stage.py), what is done with the answer.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CONTRACT = f"{__name__.rpartition('.')[0]}.stage"
"""Every stage imports it. It declares and computes nothing, and is of the platform around the stages: what it imports
is no library of a stage, else torch would be one of all."""
OURS = __name__.partition(".")[0]


@dataclass(frozen=True)
class Code:
    """What stands behind one stage."""

    sha256: str
    """Of all sources, by name."""
    libraries: dict[str, str]
    """Distribution and version of every installed library that it imports, sorted. Not those that libraries import."""
    unknown: tuple[str, ...]
    """Modules that it imports and that no installed distribution gives."""


def code_behind(module_name: str) -> Code:
    """The code and libraries of a stage's module and of all that it imports of its package, also inside functions."""
    package = module_name.rsplit(".", 1)[0]
    sources: dict[str, bytes] = {}
    libraries: set[str] = set()
    waiting = [module_name]
    while waiting:
        name = waiting.pop()
        if name == CONTRACT or name in sources:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
            continue
        sources[name], imported, foreign = _read(spec.origin, Path(spec.origin).stat().st_mtime_ns, package)
        waiting += imported
        libraries |= foreign
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")
    unknown = tuple(sorted(module for module in libraries if not versions_of([module])))
    return Code(digest.hexdigest(), versions_of(libraries), unknown)


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """Installed distributions and versions that give these top-level modules; a module without one is left out."""
    return dict(sorted(each for module in modules for each in _distributions_of(module, tuple(sys.path))))


@cache
def _read(path: str, changed_ns: int, package: str) -> tuple[bytes, tuple[str, ...], frozenset[str]]:
    """A module's source, which modules of the package it imports, and which of libraries; most stages share theirs."""
    source = Path(path).read_bytes()
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    ours = tuple(name for name in found if name.startswith(f"{package}.") and _is_module(name))
    tops = {name.partition(".")[0] for name in found}
    return source, ours, frozenset(tops - sys.stdlib_module_names - {OURS, package.partition(".")[0]})


def _is_module(name: str) -> bool:
    """Whether a dotted name is a module; never imports it, nor (as find_spec would) the module whose function it is."""
    parent = importlib.util.find_spec(name.rpartition(".")[0])
    is_in_package = parent is not None and parent.submodule_search_locations is not None
    return is_in_package and importlib.util.find_spec(name) is not None


# --- which distribution a module is of: importlib.metadata knows it too, but reads for 0.15 s ---------------


@cache
def _distributions_of(module: str, path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(name, version) of what gives a module: the distribution of its name, else those whose files it is among."""
    installed = _installed(path)
    name = normal_name(module)
    if name in installed:
        return ((name, installed[name][0]),)
    marks = (f"\n{module}/".encode(), f"\n{module}.py".encode(), f"\n{module}.".encode())
    givers: list[tuple[str, str]] = []
    for name, (version, folder) in installed.items():
        record = Path(folder, "RECORD")
        content = b"\n" + record.read_bytes() if record.is_file() else b""
        if any(mark in content for mark in marks):
            givers.append((name, version))
    return tuple(givers)


@cache
def _installed(path: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Every distribution on the path, by the name of its folder: name -> (version, folder). The first one counts."""
    found: dict[str, tuple[str, str]] = {}
    for folder in path:
        if os.path.isdir(folder):
            for entry in sorted(os.listdir(folder)):
                if match := re.fullmatch(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info", entry):
                    found.setdefault(normal_name(match["name"]), (match["version"], os.path.join(folder, entry)))
    return found


def normal_name(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
