"""A scan of one format, written as another.

Belongs here: finding the format that writes. Does not belong here: how any format is written (formats/).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.reader import known_formats, read_all

Write = Callable[[Scan, Path], list[str]]


def writers() -> dict[str, Write]:
    """The formats that can be written, by name."""
    return {each.NAME: write for each in known_formats() if (write := getattr(each, "write", None)) is not None}


def convert(path: Path | str, out: Path, format_name: str) -> list[str]:
    """Writes the scan that lies at `path` as another format into a new folder; what was lost, a sentence each.

    The format is named as in `writers()`, or by how one of these names begins.

    Raises: ScanRejected for a format that cannot be written, a scan that cannot be read, or one that the format cannot
    hold; FileExistsError when `out` is there already; OSError when the disk is full or read-only.
    """
    known = writers()
    meant = [name for name in known if name == format_name] or [name for name in known if name.startswith(format_name)]
    if len(meant) != 1:
        raise ScanRejected(
            "the format to convert to",
            expected=f"one of {', '.join(known)}",
            received=format_name or "none",
            do="Choose one of these.",
        )
    reading = read_all(path)
    lost = [f"{each.place}: {each.received}." for each in reading.remarks if each.severity == "warning"]
    return lost + known[meant[0]](reading.scan, Path(out))
