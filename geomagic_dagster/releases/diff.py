"""What changed between two manifests, in words that a reviewer reads.

Belongs here: the sentences. Does not belong here: what a manifest is (manifest.py).

It is complete: what has no sentence of its own is said by its place, so that two manifests without a line between them
are equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

NOTHING: Any = object()
Change = Callable[[str, Any, Any], Iterator[str]]


def diff_in_words(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each change, libraries first, then stages in their order; none where the manifests are equal.

    Example: "depth: deadline 4 min -> 6 min", "layout: code changed, version 3 -> 4", "numpy 2.2.1 -> 2.3.0"
    """
    lines = [*_libraries(old, new), *_stages(old["stages"], new["stages"])]
    for name in _keys(old, new, but=("sha256", "lock", "stages")):
        before, after = old.get(name, NOTHING), new.get(name, NOTHING)
        if before != after:
            lines += _TOP.get(name, _by_place)(name, before, after)
    if not lines and dict(old) != dict(new):  # nothing but its own digest, or types that Python finds equal
        lines += _by_place("manifest", old.get("sha256", NOTHING), new.get("sha256", NOTHING))
    return lines


# --- libraries -----------------------------------------------------------------------------------


def _libraries(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = (each.get("lock") or {} for each in (old, new))
    used = _used_by_stages(old, new)
    pinned = _versions(before.get("packages", {}), after.get("packages", {}))
    for name, change in pinned.items():
        stages = used.pop((name, *change), [])
        yield _library(name, *change) + (f" (in {', '.join(stages)})" if stages else "")
    for (name, *change), stages in used.items():  # without a lock, or where a stage says something else than it
        yield f"{_library(name, *change)} (in {', '.join(stages)})"
    if bool(before) != bool(after):
        yield f"dependency lock: {'removed' if before else 'new'}"
    elif before != after and not pinned:
        yield "dependency lock: same versions, other content"


def _versions(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _library(name: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"{name} {new}: new"
    return f"{name} {old}: removed" if new is None else f"{name} {old} -> {new}"


def _used_by_stages(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[tuple[Any, ...], list[str]]:
    """(library, old version, new version) -> the stages that import another version of it now."""
    found: dict[tuple[Any, ...], list[str]] = {}
    before = {each["name"]: each["libraries"] for each in old["stages"]}
    for stage in new["stages"]:
        for name, change in _versions(before.get(stage["name"], {}), stage["libraries"]).items():
            if None not in change and stage["name"] in before:
                found.setdefault((name, *change), []).append(stage["name"])
    return found


# --- stages --------------------------------------------------------------------------------------


def _stages(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[str]:
    before, after = ({each["name"]: each for each in stages} for stages in (old, new))
    for name in (name for name in before if name not in after):
        yield f"{name}: stage removed, version {before[name]['version']}"
    for name, stage in after.items():
        if name not in before:
            inputs = ", ".join(each["name"] for each in stage["inputs"])
            yield f"{name}: new stage, version {stage['version']}, takes {inputs}, makes {stage['returns']['noun']}"
        elif before[name] != stage:
            yield from _stage(name, before[name], stage)
    orders = [[name for name in stages if name in before and name in after] for stages in (before, after)]
    if orders[0] != orders[1]:
        yield f"order of the stages: {', '.join(orders[0])} -> {', '.join(orders[1])}"
    for what, stages, by_name in (("old", old, before), ("new", new, after)):
        if len(stages) != len(by_name):
            yield f"stages: the {what} manifest names one twice"


def _stage(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old.get("code_sha256") != new.get("code_sha256"):
        is_new = old["version"] != new["version"]
        version = f"version {old['version']} -> {new['version']}" if is_new else f"version still {new['version']}"
        yield f"{name}: code changed, {version}"
    elif old.get("version") != new.get("version"):
        yield f"{name}: version {old.get('version')} -> {new.get('version')}, same code"
    for field in _keys(old, new, but=("name", "code_sha256", "version")):
        before, after = old.get(field, NOTHING), new.get(field, NOTHING)
        if before == after:
            continue
        has_sentence = field in _OF_A_STAGE and NOTHING not in (before, after)
        lines = list(_OF_A_STAGE[field](name, before, after)) if has_sentence else []
        if field != "libraries" or NOTHING in (before, after):  # another version of one is said once for all stages
            lines = lines or list(_by_place(f"{name}: {field}", before, after))
        yield from lines


def _inputs(stage: str, old: list[dict[str, str]], new: list[dict[str, str]]) -> Iterator[str]:
    before, after = ({each["name"]: each["type"] for each in inputs} for inputs in (old, new))
    gone, come = [n for n in before if n not in after], [n for n in after if n not in before]
    if len(gone) == len(come) == 1 and before[gone[0]] == after[come[0]]:
        yield f"{stage}: input {gone[0]} is {come[0]} now"
    else:
        yield from (f"{stage}: no longer takes {name}" for name in gone)
        yield from (f"{stage}: now takes {name} ({after[name]})" for name in come)
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            yield f"{stage}: takes {name} as {before[name]} -> {after[name]}"


def _returns(stage: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old["noun"] != new["noun"]:
        yield f"{stage}: makes {old['noun']} -> {new['noun']}"
    before, after = (
        {f"{noun}.{name}": type_ for noun, fields in each["fields"].items() for name, type_ in fields.items()}
        for each in (old, new)
    )
    yield from _named(f"{stage}: its result", "field", before, after)


def _settings(stage: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"{stage}: new setting {name} = {_short(after[name].get('default'))}"
        elif name not in after:
            yield f"{stage}: setting {name} removed"
        else:
            for key in _keys(before[name], after[name]):
                change = before[name].get(key, NOTHING), after[name].get(key, NOTHING)
                if change[0] != change[1]:
                    yield f"{stage}: setting {name}: {key} {_short(change[0])} -> {_short(change[1])}"
    for key in _keys(old, new, but=("properties",)):
        if old.get(key, NOTHING) != new.get(key, NOTHING):
            yield from _by_place(f"{stage}: settings, {key}", old.get(key, NOTHING), new.get(key, NOTHING))


def _expects(stage: str, old: dict[str, list[float | None]], new: dict[str, list[float | None]]) -> Iterator[str]:
    before, after = ({name: _range(bounds) for name, bounds in each.items()} for each in (old, new))
    yield from _named(stage, "expected range of", before, after)


def _range(bounds: list[float | None]) -> str:
    low, high = ("any" if each is None else f"{each!r}" for each in bounds)
    return f"{low} to {high}"


def _flags(stage: str, old: list[str], new: list[str]) -> Iterator[str]:
    yield from (f"{stage}: flag {name} removed" for name in old if name not in new)
    yield from (f"{stage}: new flag {name}" for name in new if name not in old)


def _stage_libraries(stage: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{stage}: now imports {name} {new[name]}"
        elif name not in new:
            yield f"{stage}: no longer imports {name}"


def _weights(stage: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    yield from _named(stage, "weights", *({name: digest[:19] for name, digest in each.items()} for each in (old, new)))


def _named(place: str, what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{place}: new {what} {name}: {new[name]}"
        elif name not in new:
            yield f"{place}: {what} {name} removed"
        elif old[name] != new[name]:
            yield f"{place}: {what} {name}: {old[name]} -> {new[name]}"


# --- what is one number or word --------------------------------------------------------------------


def _minutes(what: str) -> Change:
    def words(place: str, old: float, new: float) -> Iterator[str]:
        yield f"{place}: {what} {_duration(old)} -> {_duration(new)}"

    return words


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return _short(seconds)
    return f"{seconds!r} s" if seconds < 60 or seconds % 6 else f"{seconds / 60:g} min"


def _plain(what: str) -> Change:
    def words(place: str, old: Any, new: Any) -> Iterator[str]:
        yield f"{place}: {what} {_short(old)} -> {_short(new)}"

    return words


def _changed(sentence: str) -> Change:
    def words(place: str, old: Any, new: Any) -> Iterator[str]:
        yield sentence

    return words


def _deadlines(name: str, old: Any, new: Any) -> Iterator[str]:
    words = {"read_s": "reading a scan", "scan_s": "the scan as a whole", "run_s": "the run"}
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield from _by_place(name, old, new)
        return
    for key in _keys(old, new):
        if old.get(key, NOTHING) != new.get(key, NOTHING):
            yield from _minutes("deadline")(words.get(key, key), old.get(key, NOTHING), new.get(key, NOTHING))


def _by_place(place: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in _keys(old, new):
            if old.get(name, NOTHING) != new.get(name, NOTHING):
                yield from _by_place(f"{place}, {name}", old.get(name, NOTHING), new.get(name, NOTHING))
    else:
        yield f"{place}: {_short(old)} -> {_short(new)}"


def _keys(old: Mapping[str, Any], new: Mapping[str, Any], but: tuple[str, ...] = ()) -> list[str]:
    """All names of both, those of the old one first; in the order of the old one."""
    return [name for name in [*old, *(name for name in new if name not in old)] if name not in but]


def _short(value: Any) -> str:
    if value is NOTHING:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}..."


_OF_A_STAGE: dict[str, Change] = {
    "inputs": _inputs,
    "returns": _returns,
    "settings": _settings,
    "deadline_s": _minutes("deadline"),
    "retries": _plain("retries"),
    "retry_timeouts": _plain("retries after a timeout"),
    "gpu": _plain("gpu"),
    "memory_gb": _plain("memory in GB"),
    "owner": _plain("owner"),
    "expects": _expects,
    "flags": _flags,
    "weights": _weights,
    "libraries": _stage_libraries,
}
_TOP: dict[str, Change] = {
    "deadlines": _deadlines,
    "python": _plain("versions that it runs on"),
    "reading_sha256": _changed("reading and checking of scans: code changed"),
    "platform_sha256": _changed("the platform around the stages: code changed"),
}
