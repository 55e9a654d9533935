"""The schema of an artefact: which fields a noun has, of which types, in words that no library's version changes.

Belongs here: describing the dataclasses that stages take and make (cv/types.py). Does not belong here: what else is
in a manifest (manifest.py).
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

import numpy as np

from geomagic_dagster.cv.stage import StageError

Schema = dict[str, dict[str, str]]
"""noun -> field -> type; the noun itself and every dataclass that its fields hold."""


def schema_of(noun: type) -> Schema:
    """Every field of a noun and of the dataclasses in it, as the result of a stage holds them."""
    schema: Schema = {}
    seen: dict[str, type] = {}
    waiting: list[Any] = [noun]
    while waiting:
        each = waiting.pop()
        if dataclasses.is_dataclass(each) and isinstance(each, type) and seen.get(each.__name__) is not each:
            if each.__name__ in seen:
                raise StageError(
                    f"{each.__module__}.{each.__name__}: expected a name of its own for each noun; got that of "
                    f"{seen[each.__name__].__module__}.{each.__name__}. Rename one of them."
                )
            seen[each.__name__] = each
            hints = typing.get_type_hints(each)
            schema[each.__name__] = {f.name: type_in_words(hints[f.name]) for f in dataclasses.fields(each)}
            waiting += hints.values()
        waiting += typing.get_args(each)
    return dict(sorted(schema.items()))


def type_in_words(hint: Any) -> str:
    """As a person writes it: `EncodedImages | None`, `array of float64`, `tuple[tuple[int, str], ...]`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return "None"
    if hint is Ellipsis:
        return "..."
    if origin is typing.Literal:
        return " | ".join(json.dumps(each, ensure_ascii=False) for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(sorted(map(type_in_words, arguments), key=lambda words: (words == "None", words)))
    if origin is np.ndarray:  # its shape is in the field's name
        dtypes = [each for argument in arguments for each in typing.get_args(argument) if isinstance(each, type)]
        return f"array of {dtypes[-1].__name__}" if dtypes and issubclass(dtypes[-1], np.generic) else "array"
    name = getattr(origin or hint, "__name__", None) or str(hint)
    return f"{name}[{', '.join(map(type_in_words, arguments))}]" if arguments else name
