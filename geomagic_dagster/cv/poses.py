"""Where the camera was: the device's odometry without its drift, so that the depth of all frames agrees.

A phone's tracking drifts by about one per cent of the way: when it comes back to a wall, it sees it some centimetres
beside where it saw it first, and the mesh gets two walls. All pairs of frames that see the same surfaces are put
together at once (alignment.py), with the odometry and gravity as priors. The first used frame stays where it is,
unless its depth does not fit that of its neighbours: then the next one that fits does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.alignment import align
from geomagic_dagster.cv.floor import find_floor
from geomagic_dagster.cv.stage import Field, Params, minutes, progress, stage
from geomagic_dagster.cv.surfels import surfels_of
from geomagic_dagster.cv.trajectory import draw_walk, walk_numbers
from geomagic_dagster.cv.types import Frames, Poses, Refinement

F64 = NDArray[np.float64]


class PosesParams(Params):
    far_m: float = Field(6.0, gt=0, description="Ignore depth beyond this: it is the least exact.")
    gravity_sigma_deg: float = Field(0.1, gt=0, description="How exactly the device keeps roll and pitch: one sigma.")
    floor_tilt_deg: float = Field(10.0, gt=0, le=45, description="A surface tilted less than this may be the floor.")


@stage(
    version="1",
    timeout=minutes(3),
    memory_gb=2,
    expects={
        "used_fraction": (0.8, 1.0),
        "disagreement_after_m": (0.0, 0.03),
        "correction_max_m": (0.0, 0.5),
        "floor_tilt_deg": (0.0, 2.0),
    },
)
def poses(frames: Frames, odometry: Poses, params: PosesParams = PosesParams()) -> Poses:
    """Refines all used poses together. Frames that were cut keep the pose that the device gave them."""
    used = np.array(odometry.used(), np.int64)
    recording = frames.recording.select(used)
    assert recording.K_depth_b33 is not None, "the odometry stage rejects scans without depth"

    def depth_and_trust() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for i in progress(range(len(recording)), "depth read"):
            depth_m_hw, trust_hw = recording.depth_m_hw(i), recording.depth_confidence_hw(i)
            is_near_hw = np.isfinite(depth_m_hw) & (depth_m_hw <= params.far_m)
            yield np.where(is_near_hw, depth_m_hw, 0), np.ones_like(depth_m_hw) if trust_hw is None else trust_hw

    surfels = surfels_of(depth_and_trust(), recording.K_depth_b33)
    aligned = align(surfels, odometry.world_T_cam_b44[used], float(np.radians(params.gravity_sigma_deg)))
    world_T_cam_b44 = odometry.world_T_cam_b44.copy()
    world_T_cam_b44[used] = aligned.world_T_cam_b44
    camera_z_m = float(np.median(aligned.world_T_cam_b44[:, 2, 3]))
    floor = find_floor(*surfels.in_world(aligned.world_T_cam_b44), camera_z_m, params.floor_tilt_deg)
    disagreement_m_b = np.full(len(odometry.is_used_b), np.nan)
    disagreement_m_b[used] = aligned.after_m_b
    return replace(
        odometry,
        world_T_cam_b44=world_T_cam_b44,
        disagreement_m_b=disagreement_m_b,
        floor_z_world_m=floor.z_m if floor else None,
        floor_tilt_deg=floor.tilt_deg if floor else None,
        refinement=Refinement(
            odometry_world_T_cam_b44=odometry.world_T_cam_b44,
            anchor=int(used[aligned.anchor]),
            pairs=aligned.pairs,
            loop_closures=aligned.loop_closures,
            disagreement_before_m=_median(aligned.before_m_b),
            disagreement_after_m=_median(aligned.after_m_b),
        ),
    )


def _median(value_b: F64) -> float | None:
    return float(np.nanmedian(value_b)) if np.isfinite(value_b).any() else None


def measure_poses(poses: Poses) -> dict[str, float]:
    numbers = {"used_fraction": float(np.mean(poses.is_used_b)), **walk_numbers(poses)}
    if poses.floor_tilt_deg is not None:
        numbers["floor_tilt_deg"] = poses.floor_tilt_deg
    if (done := poses.refinement) is not None:
        moved_m_b = np.linalg.norm((poses.world_T_cam_b44 - done.odometry_world_T_cam_b44)[:, :3, 3], axis=1)
        numbers["correction_max_m"] = float(moved_m_b.max())
        numbers["pairs"], numbers["loop_closures"] = done.pairs, done.loop_closures
        if done.disagreement_before_m is not None and done.disagreement_after_m is not None:
            numbers["disagreement_before_m"] = done.disagreement_before_m
            numbers["disagreement_after_m"] = done.disagreement_after_m
    return numbers


def preview_poses(poses: Poses) -> NDArray[np.uint8]:
    """The walk from above: start green, end red, cut frames grey; where the odometry had it, light blue."""
    before_m_b3 = None if poses.refinement is None else poses.refinement.odometry_world_T_cam_b44[:, :3, 3]
    return draw_walk(poses, before_m_b3)
