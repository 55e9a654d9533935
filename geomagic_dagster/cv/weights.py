"""Trained weights: where a stage finds the files that it declares.

    @stage(version="1", timeout=minutes(2), weights={"net": "sha256:..."})
    def glass(frames: Frames) -> Glass:
        net.load_state_dict(torch.load(weights("net"), weights_only=True))

Belongs here: `weights(name)`, which a stage asks as it asks `flag(name)`, and `weights_from(...)`, by which the
platform, a notebook or a test says where the files lie. Does not belong here: finding, fetching and verifying them
(resources/weights.py). It stands beside stage.py, not in it: the bytes of stage.py are part of every stage's
identity, and those of this file only of the stages that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from geomagic_dagster.cv.stage import Stage, StageError

Find = Callable[[str], Path]

_find: Find | None = None
_running: Stage | None = None


def weights(name: str) -> Path:
    """The file of trained weights that the stage declares under this name; to be read, never written.

    Raises: StageError for a name that the stage does not declare, and where nobody said where the files lie.
    """
    if _running is not None and name not in _running.weights:
        raise StageError(
            f"stage {_running.name}: expected weights that its @stage declares "
            f"({', '.join(sorted(_running.weights)) or 'it declares none'}); got weights({name!r}). "
            f'Write @stage(..., weights={{"{name}": "sha256:..."}}); `geomagic weights add FILE` prints the line.'
        )
    if _find is None:
        where = "this process" if _running is None else f"stage {_running.name}"
        raise StageError(
            f"{where}: expected somebody to say where the file of weights({name!r}) lies; got nobody, as in a notebook "
            f'or a test. Call the stage inside of: with weights_from({{"{name}": "path/of/the/file"}}):'
        )
    return _find(name)


@contextmanager
def weights_from(files: Mapping[str, str | Path] | Find | None, stage: Stage | None = None) -> Iterator[None]:
    """Inside the block weights are these files, by name, or what a function says; for one stage where it is named."""
    global _find, _running
    before = _find, _running
    _find, _running = _by_name(files) if isinstance(files, Mapping) else files, stage
    try:
        yield
    finally:
        _find, _running = before


def _by_name(files: Mapping[str, str | Path]) -> Find:
    def find(name: str) -> Path:
        if name not in files:
            raise StageError(
                f"weights_from: expected a file for weights({name!r}); got one for {', '.join(files) or 'none'}. "
                "Name it there too."
            )
        path = Path(files[name])
        if not path.is_file():
            raise StageError(f"weights_from: expected weights({name!r}) at {path}; got no such file. Look at the path.")
        return path

    return find


def weights_as_inputs(stage: Stage) -> dict[str, str]:
    """What a stage's weights add to the inputs that its result is named by; nothing for a stage without any.

    Most digests stand in the stage's own code, which its identity holds anyway; those that it reads from elsewhere are
    held by this.
    """
    return {f"weights {name}": digest for name, digest in sorted(stage.weights.items())}
