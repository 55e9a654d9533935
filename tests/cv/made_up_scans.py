"""Small made-up scans for the tests of stages: the same ones everywhere, made once a test session."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from geomagic_dagster.cv.frames import frames
from geomagic_dagster.cv.odometry import odometry
from geomagic_dagster.cv.poses import poses
from geomagic_dagster.cv.types import Frames, Poses, Scan
from geomagic_dagster.scans.made_up import CLEAN, PHONE, MadeUpScan, make_room, scan_room

__all__ = ["clean", "framed_and_posed", "phone", "with_poses"]


@cache
def clean(seed: int = 1, count: int = 40) -> MadeUpScan:
    """A perfect scan of 160 x 120."""
    return scan_room(make_room(seed), CLEAN.but(frames=count, size_wh=(160, 120)))


@cache
def phone(seed: int = 1, count: int = 60) -> MadeUpScan:
    """A scan as a phone makes it, 320 x 240."""
    return scan_room(make_room(seed), PHONE.but(frames=count))


def with_poses(scan: Scan, scan_T_cam_b44) -> Scan:
    return replace(scan, scan_T_cam_b44=scan_T_cam_b44)


@cache
def framed_and_posed(kind: str, seed: int = 1) -> tuple[Frames, Poses]:
    scan = (clean if kind == "clean" else phone)(seed).scan
    kept = frames(scan)
    return kept, poses(kept, odometry(scan, kept))
