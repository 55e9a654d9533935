"""The toy stages with a network: a tiny state dict, and a copy of their package that declares its digest."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geomagic_dagster.cv.stage import Stage, find_stages
from geomagic_dagster.resources.weights import PREFIX, _sha256_of

TRAINED = Path(__file__).parent / "trained"
NAME = "tests.toy_stages.trained"
UNTRAINED = PREFIX + 64 * "0"


def write_net(path: Path, bias: float = 0.5) -> Path:
    """What a training leaves behind: a state dict of four numbers."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": torch.tensor([[1.0, 0.0, -1.0]]), "bias": torch.tensor([bias])}, path)
    return path


def digest_of(path: Path) -> str:
    return PREFIX + _sha256_of(path)


@contextmanager
def trained(folder: Path, digest: str) -> Iterator[str]:
    """Inside the block there is a package of the trained stages with this digest pasted in; its name."""
    name = f"trained_{uuid.uuid4().hex[:8]}"
    (folder / name).mkdir(parents=True)
    for file in TRAINED.glob("*.py"):
        (folder / name / file.name).write_text(file.read_text().replace(NAME, name).replace(UNTRAINED, digest))
    sys.path.insert(0, str(folder))
    try:
        yield name
    finally:
        sys.path.remove(str(folder))


def stages_of(name: str) -> dict[str, Stage]:
    return {each.name: each for each in find_stages(name)}
