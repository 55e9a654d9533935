"""What a stage is; finds the stages; derives their order from their arguments.

Belongs here: the `@stage` decorator and what it records, the settings base class, `ScanRejected`,
and three of the four things a stage may ask of whoever runs it: `compute_device()`, `progress()`, `flag()`; the fourth,
`weights()`, is in weights.py. Does not belong here: anything of Dagster, of files, or of one particular stage; which
code and libraries stand behind one (code.py).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
import re
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as pydantic_field

from geomagic_dagster.cv.code import code_behind

if TYPE_CHECKING:
    import torch

__all__ = [
    "Field",
    "Params",
    "ScanRejected",
    "Stage",
    "StageError",
    "compute_device",
    "find_stages",
    "flag",
    "flags_on",
    "known_flags",
    "minutes",
    "progress",
    "refuse_unknown_flags",
    "report_progress_to",
    "seconds",
    "stage",
]

SOURCE = "scan"
"""The one argument that no stage makes: the uploaded scan itself."""

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


class ScanRejected(Exception):
    """This scan can never be processed as it is: not retried, told to the person who uploaded it.

    Example: `ScanRejected("depth", expected="depth images", received="colour images only",
    do="Scan again with a phone that has a depth sensor.")`
    """

    def __init__(self, place: str, *, expected: str, received: str, do: str) -> None:
        self.place, self.expected, self.received, self.do = place, expected, received, do
        super().__init__(f"{place}: expected {expected}; got {received}. {do}")

    def __reduce__(self) -> tuple[Any, ...]:  # exceptions with keyword arguments do not pickle by themselves
        return (_rebuild_rejection, (self.place, self.expected, self.received, self.do))


def _rebuild_rejection(place: str, expected: str, received: str, do: str) -> ScanRejected:
    return ScanRejected(place, expected=expected, received=received, do=do)


class StageError(Exception):
    """A stage is declared wrongly, or was handed what breaks its contract; the message says where, and what to do.

    Never retried: the same code does the same again.
    """


class Params(BaseModel):
    """Settings of a stage: frozen, every one with a default, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def Field(default: Any, *, description: str, **limits: Any) -> Any:
    """A setting: its default, a sentence for the launchpad, and its limits (gt, ge, lt, le)."""
    return pydantic_field(default, description=description, **limits)


def seconds(count: float) -> float:
    return float(count)


def minutes(count: float) -> float:
    return 60.0 * count


@dataclass(frozen=True)
class Stage:
    """All that is known of one step. The adapters read it; nobody repeats it."""

    name: str
    function: Callable[..., Any]
    description: str
    inputs: tuple[str, ...]  # names of upstream stages, or "scan"
    params: type[Params]
    returns: type
    version: str
    timeout_s: float
    retries: int
    retry_timeouts: bool
    gpu: bool
    memory_gb: float
    owner: str
    expects: Mapping[str, tuple[float, float]]
    code_sha256: str
    """Of the code as it was when this process imported it, which is what runs: not of an edit since."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Distribution and version of every third-party library that this code imports, as installed here."""
    flags: tuple[str, ...] = ()
    """Feature flags that it may ask for by `flag(name)`, sorted."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Trained weights that it uses: name -> "sha256:..."."""

    @property
    def code_version(self) -> str:
        """Version and a digest of the code behind it: an edit without a new version never reuses old results."""
        return f"{self.version}-{self.code_sha256[:12]}"

    def measure(self, result: Any) -> dict[str, float]:
        """The numbers of a result, from `measure_<stage>` in the stage's file; empty without one."""
        function = self.function.__globals__.get(f"measure_{self.name}")
        return {} if function is None else _as_numbers(function(result), f"stage {self.name}: measure_{self.name}")

    def preview_rgb_hw3(self, result: Any) -> Any | None:
        """A picture of a result, from `preview_<stage>` in the stage's file; None without one."""
        function = self.function.__globals__.get(f"preview_{self.name}")
        return None if function is None else function(result)

    def own_flags(self, flags: Iterable[str]) -> tuple[str, ...]:
        """Those of the flags that are on which this stage declares, sorted: the others cannot change its result."""
        return tuple(sorted(set(flags) & set(self.flags)))

    def identity(self, settings: Params, inputs: Mapping[str, str], flags: Iterable[str] = ()) -> str:
        """Names the result of this stage with these settings on inputs of these identities, with these flags on.

        Libraries are part of it, so that two releases with another numpy never reuse each other's results; they are
        no part of `code_version`, which says what somebody wrote. With all flags off it is as if there were none.
        """
        record: dict[str, Any] = {
            "stage": self.name,
            "code_version": self.code_version,
            "libraries": dict(self.libraries),
            "settings": settings.model_dump(mode="json"),
            "inputs": dict(inputs),
        }
        if on := self.own_flags(flags):
            record["flags"] = list(on)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def stage(
    *,
    version: str,
    timeout: float,
    retries: int = 2,
    retry_timeouts: bool = True,
    gpu: bool = False,
    memory_gb: float = 2.0,
    owner: str = "team:research",
    expects: Mapping[str, tuple[float, float]] | None = None,
    flags: Iterable[str] = (),
    weights: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Declares a function to be a stage. It stays an ordinary function.

    Argument names are the upstream stages (or `scan`); an optional argument `params` holds the
    settings. `expects` maps a number of `measure_<stage>` to its expected range (low, high). `timeout` is the
    deadline in seconds of one attempt; `retry_timeouts=False` where trying again would only take as long again.
    `flags` are the names that it asks for by `flag(name)`; `weights` the trained files that it uses, by digest.
    """

    sorted_flags = tuple(sorted(set([flags] if isinstance(flags, str) else flags)))

    def declare(function: Function) -> Function:
        place = f"{inspect.getsourcefile(function)}: @stage {function.__name__}"
        if not isinstance(version, str):
            raise StageError(f'{place}: expected a version in quotes; got {version!r}. Write version="{version}".')
        if not 0 < timeout < float("inf"):  # also refuses NaN
            raise StageError(f"{place}: expected a timeout above 0 s; got {timeout}. Write timeout=minutes(4).")
        if retries < 0:
            raise StageError(f"{place}: expected retries of 0 or more; got {retries}.")
        for number, (low, high) in (expects or {}).items():
            if not low <= high:
                raise StageError(f"{place}: expects[{number!r}] is ({low}, {high}); write the lower bound first.")
        for name in sorted_flags:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise StageError(f'{place}: expected flags like "new_plane_fit"; got {name!r}. Use a-z, 0-9 and _.')
        for name, digest in (weights or {}).items():
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                raise StageError(
                    f"{place}: expected weights[{name!r}] as sha256: and 64 hexadecimal digits; got {digest!r}. "
                    "sha256sum FILE says them."
                )
        _known_flags.update(sorted_flags)
        function.__stage__ = dict(  # type: ignore[attr-defined]
            version=version,
            timeout_s=timeout,
            retries=retries,
            retry_timeouts=retry_timeouts,
            gpu=gpu,
            memory_gb=memory_gb,
            owner=owner,
            expects=dict(expects or {}),
            flags=sorted_flags,
            weights=dict(weights or {}),
        )
        return function

    return declare


def describe_stage(function: Callable[..., Any]) -> Stage:
    """Reads a decorated function: its arguments are its inputs, its docstring its description."""
    place = f"{inspect.getsourcefile(function)}: @stage {function.__name__}"
    name = function.__name__
    if name != function.__module__.rsplit(".", 1)[-1]:
        raise StageError(f"{place}: a stage has the name of its file; rename the file or the function.")
    arguments = list(inspect.signature(function).parameters)
    hints = _type_hints(function, [*arguments, "return"], place)
    params = hints.get("params", Params)
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise StageError(f"{place}: params is {params}; expected a class that inherits from Params.")
    for setting, said in params.model_fields.items():
        if said.is_required() or not said.description:
            raise StageError(
                f"{place}: setting {params.__name__}.{setting} needs a default and a description; "
                f'write {setting}: float = Field(1.0, description="...").'
            )
    _check_defaults(params, place)
    text = inspect.getdoc(importlib.import_module(function.__module__)) or inspect.getdoc(function) or ""
    description = "\n\n".join(part for part in text.split("\n\n") if not part.startswith("Belongs here:"))
    if not description:
        raise StageError(f"{place}: no description; begin the file with a sentence in three double quotes.")
    declared: dict[str, Any] = function.__stage__  # type: ignore[attr-defined]
    _check_companions(function, place)
    code = code_behind(function.__module__)
    return Stage(
        name=name,
        function=function,
        description=description,
        inputs=tuple(argument for argument in arguments if argument != "params"),
        params=params,
        returns=hints["return"],
        code_sha256=code.sha256,
        libraries=code.libraries,
        **declared,
    )


def _type_hints(function: Callable[..., Any], names: Iterable[str], place: str) -> dict[str, Any]:
    """The types of a stage's arguments and result: one class each, so that stages can be held against each other."""
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise StageError(f"{place}: expected types that the file knows; got {error}. Import it at the top.") from error
    for name in names:
        if name not in hints:
            raise StageError(f"{place}: {name!r} has no type; write the noun that it is (see cv/types.py).")
        if typing.get_origin(hints[name]) is not None or not isinstance(hints[name], type):
            what = "returns" if name == "return" else f"takes {name} as"
            raise StageError(
                f"{place}: expected one class; it {what} {hints[name]}. Write a noun of cv/types.py, "
                "or a frozen dataclass of arrays and numbers in the stage's own file."
            )
    return hints


def _check_defaults(params: type[Params], place: str) -> None:
    """Pydantic looks at what is given, not at defaults."""
    try:
        params.model_validate(params().model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        raise StageError(
            f"{place}: setting {params.__name__}.{first['loc'][0]}: expected a default within its own limits; got "
            f"{first['input']!r} ({first['msg']}). Change one of the two."
        ) from error


def _check_companions(function: Callable[..., Any], place: str) -> None:
    """`measure_<stage>` and `preview_<stage>` are found by their names, so a misspelt one would never be called."""
    names = function.__globals__
    own = [name for name, value in names.items() if getattr(value, "__module__", None) == function.__module__]
    for kind in ("measure_", "preview_"):
        candidates = [name.removeprefix(kind) for name in own if name.startswith(kind)]
        if kind + function.__name__ not in names and (close := get_close_matches(function.__name__, candidates)):
            raise StageError(
                f"{place}: expected {kind}{function.__name__}; got {kind}{close[0]}, which nobody calls. Rename it; "
                "a helper's name begins with _."
            )


def _as_numbers(measured: Any, place: str) -> dict[str, float]:
    if not isinstance(measured, Mapping):
        raise StageError(
            f'{place}: expected a dict of numbers; got {type(measured).__name__}. Write return {{"name": 1.0}}.'
        )
    numbers = {}
    for name, value in measured.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError) as error:
            received = f"{type(value).__name__} ({error})"
            raise StageError(f"{place}: expected a number as {name!r}; got {received}. Write one number.") from error
    return numbers


def _imported(name: str, folder: str) -> ModuleType:
    """A file of stages. Raises: StageError for one that cannot be imported, with the line."""
    try:
        return importlib.import_module(name)
    except StageError:
        raise
    except SyntaxError as error:
        raise StageError(
            f"{error.filename}, line {error.lineno}: expected Python; got {error.msg}. Mend it there or just before."
        ) from error
    except Exception as error:
        lines = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(folder)]
        place = f"{lines[-1].filename}, line {lines[-1].lineno}" if lines else name
        do = "Mend that line."
        if isinstance(error, ModuleNotFoundError):
            do = "Look at the spelling; a new library is named in pyproject.toml, then: make lock setup."
        raise StageError(
            f"{place}: expected a file that can be imported; got {type(error).__name__}: {error}. {do}"
        ) from error


def find_stages(package: str = "geomagic_dagster.cv") -> tuple[Stage, ...]:
    """Every stage of a package, upstream first. A file that holds a decorated function is registered by being there."""
    found: dict[str, Stage] = {}
    folders = list(importlib.import_module(package).__path__)
    for module_info in pkgutil.iter_modules(folders):
        if module_info.name.endswith("_kernels"):  # compiled code beside a stage: no stage, and seconds to import
            continue
        module = _imported(f"{package}.{module_info.name}", folders[0])
        for function in vars(module).values():
            if hasattr(function, "__stage__") and function.__module__ == module.__name__:
                described = describe_stage(function)
                found[described.name] = described
    return in_order(found)


def in_order(stages: Mapping[str, Stage]) -> tuple[Stage, ...]:
    """Upstream before downstream; among equals by name, so that the order never changes by chance."""
    for each in stages.values():
        for name in each.inputs:
            if name != SOURCE and name not in stages:
                raise StageError(
                    f"stage {each.name}: its argument {name!r} is neither {SOURCE!r} nor a stage; "
                    f"the stages are {', '.join(sorted(stages))}."
                )
            if name != SOURCE:
                hint = typing.get_type_hints(each.function)[name]
                if hint is not stages[name].returns:
                    raise StageError(
                        f"stage {each.name}: takes {name} as {hint.__name__}, but stage {name} returns "
                        f"{stages[name].returns.__name__}. Make the two agree."
                    )
    ordered: dict[str, Stage] = {}
    waiting = dict(sorted(stages.items()))
    while waiting:
        ready = [n for n, each in waiting.items() if all(i == SOURCE or i in ordered for i in each.inputs)]
        if not ready:
            raise StageError(f"these stages wait for each other: {', '.join(waiting)}. Remove one of the arguments.")
        ordered[ready[0]] = waiting.pop(ready[0])
    return tuple(ordered.values())


# --- what a stage may ask of whoever runs it -----------------------------------------------------

_known_flags: set[str] = set()
_device_name: str | None = None
_flags_on: frozenset[str] = frozenset()
_running: Stage | None = None
_reporter: Callable[[str, int, int | None], None] | None = None


def compute_device() -> torch.device:
    """Where tensors of this process live: what the platform chose, else CUDA where there is one."""
    import torch

    return torch.device(_device_name or ("cuda" if torch.cuda.is_available() else "cpu"))


def use_compute_device(name: str | None) -> None:
    """Chooses the device for this process ("cpu", "cuda:0", ...); None: CUDA where there is one."""
    global _device_name
    _device_name = name


def flag(name: str) -> bool:
    """Whether a feature flag is on for this scan; off in a notebook or a test, but inside of `flags_on(...)`.

    Raises: StageError for one that the stage does not declare: its result would not say so.
    """
    declared = _known_flags if _running is None else _running.flags
    if name not in declared:
        where = "this process" if _running is None else f"stage {_running.name}"
        raise StageError(
            f"{where}: expected a flag that its @stage declares ({', '.join(sorted(declared)) or 'it declares none'}); "
            f'got flag({name!r}). Write @stage(..., flags=("{name}",)).'
        )
    return name in _flags_on


@contextmanager
def flags_on(*names: str, stage: Stage | None = None) -> Iterator[None]:
    """Inside the block these feature flags are on, all others off; for one stage where it is named."""
    global _flags_on, _running
    before = _flags_on, _running
    _flags_on, _running = frozenset(names), stage
    try:
        yield
    finally:
        _flags_on, _running = before


def known_flags() -> frozenset[str]:
    """Every flag that any stage declares which this process has imported."""
    return frozenset(_known_flags)


def refuse_unknown_flags(names: Iterable[str]) -> None:
    """For flags that a person named. Raises: ScanRejected where no stage declares one of them."""
    if unknown := sorted(set(names) - _known_flags):
        raise ScanRejected(
            "feature flags",
            expected=f"those that a stage declares ({', '.join(sorted(_known_flags)) or 'none does'})",
            received=", ".join(unknown),
            do='A stage declares one by @stage(..., flags=("name",)).',
        )


def progress(items: Iterable[T], what: str = "frames") -> Iterator[T]:
    """Passes items through and tells whoever listens how far a long loop has come."""
    total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    for done, item in enumerate(items):
        report_progress(what, done, total)
        yield item
    report_progress(what, total if total is not None else -1, total)


def report_progress(what: str, done: int, total: int | None) -> None:
    """Tells whoever listens; for whoever hears of a loop that runs in another process."""
    if _reporter is not None:
        _reporter(what, done, total)


def report_progress_to(reporter: Callable[[str, int, int | None], None] | None) -> None:
    """Sends `(what, done, total)` of every `progress` loop of this process to a function; None: to nobody."""
    global _reporter
    _reporter = reporter
