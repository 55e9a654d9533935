"""What the device says of where the camera was: made upright, checked against the depth, jumps cut.

A phone that loses its way and finds it again (relocalises) moves its whole world in one frame. Fused, that
gives every wall twice. Two neighbouring frames see the same surfaces, so their depths tell: the walk is
split where they disagree, and a piece that does not fit the longest one is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import project, rotation_between, transform
from geomagic_dagster.cv.floor import Floor, find_floor
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, compute_device, minutes, progress, stage
from geomagic_dagster.cv.trajectory import draw_walk, walk_numbers
from geomagic_dagster.cv.types import Frames, Poses, Recording, Scan

if TYPE_CHECKING:
    from torch import Tensor

F64 = NDArray[np.float64]


class OdometryParams(Params):
    jump_m: float = Field(0.05, gt=0, description="Neighbouring frames whose depths differ by more than this disagree.")
    jump_ratio: float = Field(5.0, ge=1, description="... if that is also this many times what is usual in this scan.")
    longest_step_m: float = Field(1.0, gt=0, description="A longer step from one frame to the next is a jump ...")
    floor_tilt_deg: float = Field(10.0, gt=0, le=45, description="A surface tilted less than this may be the floor.")


@stage(
    version="1",
    timeout=minutes(2),
    gpu=True,
    memory_gb=2,
    expects={"used_fraction": (0.8, 1.0), "disagreement_median_m": (0.0, 0.05), "floor_tilt_deg": (0.0, 2.0)},
)
def odometry(scan: Scan, frames: Frames, params: OdometryParams = OdometryParams()) -> Poses:
    """Upright camera-to-world poses of the kept frames.

    Raises: ScanRejected for a scan without poses, depth or scale, or without any way to tell what is up.
    """
    if frames.recording.depth is None:
        scale = "" if scan.is_metric else " and no metric scale"
        raise ScanRejected(
            "odometry",
            expected="depth images in metres",
            received=f"colour images only: this scan has no depth{scale}",
            do="Scan with a phone that has a depth sensor (LiDAR or time of flight) and export its depth.",
        )
    if scan.scan_T_cam_b44 is None:
        raise ScanRejected(
            "odometry",
            expected="a camera pose for each frame",
            received="a scan without poses",
            do="Export the scan with its camera poses (odometry).",
        )
    if not scan.is_metric:
        raise ScanRejected(
            "odometry",
            expected="poses in metres",
            received="poses in units of unknown length: this scan has no metric scale",
            do="Export the scan from the app that recorded it with depth instead of from structure-from-motion.",
        )
    scan_T_cam_b44 = _orthonormal(scan.scan_T_cam_b44[frames.scan_frame_b])
    views = _coarse_views(frames.recording)

    is_used_b, disagreement_m_b, cuts = _cut_jumps(frames, scan_T_cam_b44, views, params)
    gravity_from: Literal["device", "floor"] = "floor" if scan.down_scan_3 is None else "device"
    if scan.down_scan_3 is not None:
        up_scan_3 = -np.asarray(scan.down_scan_3)
    else:
        up_scan_3 = _up_from_floor(views, scan_T_cam_b44, is_used_b)
    world_T_scan_44 = np.eye(4)
    world_T_scan_44[:3, :3] = rotation_between(up_scan_3, np.array([0.0, 0.0, 1.0]))
    floor = _find_floor(views, world_T_scan_44 @ scan_T_cam_b44, is_used_b, params)
    if gravity_from == "floor" and floor is not None:  # the floor as a plane is truer than the mean of normals
        level_44 = np.eye(4)
        level_44[:3, :3] = rotation_between(floor.up_3, np.array([0.0, 0.0, 1.0]))
        world_T_scan_44 = level_44 @ world_T_scan_44
        floor = _find_floor(views, world_T_scan_44 @ scan_T_cam_b44, is_used_b, params)
    world_T_cam_b44 = world_T_scan_44 @ scan_T_cam_b44
    return Poses(
        world_T_cam_b44=world_T_cam_b44,
        world_T_scan_44=world_T_scan_44,
        is_used_b=is_used_b,
        disagreement_m_b=disagreement_m_b,
        gravity_from=gravity_from,
        floor_z_world_m=floor.z_m if floor else None,
        floor_tilt_deg=floor.tilt_deg if floor else None,
        cuts=cuts,
    )


def measure_odometry(odometry: Poses) -> dict[str, float]:
    numbers = {"used_fraction": float(np.mean(odometry.is_used_b)), "cut": len(odometry.cuts), **walk_numbers(odometry)}
    if np.isfinite(odometry.disagreement_m_b).any():
        numbers["disagreement_median_m"] = float(np.nanmedian(odometry.disagreement_m_b))
    if odometry.floor_tilt_deg is not None:
        numbers["floor_tilt_deg"] = odometry.floor_tilt_deg
    return numbers


def preview_odometry(odometry: Poses) -> NDArray[np.uint8]:
    """The walk from above: start green, end red, cut frames grey; a bar of one metre."""
    return draw_walk(odometry)


# --- what follows works on coarse views: every s-th pixel, about 160 x 120 -------------------------


class _Views:
    """Coarse depth of every frame on the compute device, with points and normals facing the camera."""

    def __init__(self, depth_m_bhw: Tensor, K_b33: Tensor) -> None:
        import torch
        from kornia.geometry.depth import depth_to_normals

        from geomagic_dagster.cv.camera import unproject

        self.depth_m_bhw, self.K_b33 = depth_m_bhw, K_b33
        self.points_cam_m_bhw3 = unproject(depth_m_bhw, K_b33)
        # Kornia's Sobel normals look away from the camera; a pixel counts where its 3 x 3 neighbours all have depth.
        normals_bhw3 = -depth_to_normals(depth_m_bhw[:, None], K_b33).permute(0, 2, 3, 1)
        empty_bhw = (depth_m_bhw <= 0).float()
        hole_bhw = torch.nn.functional.max_pool2d(empty_bhw[:, None], 3, stride=1, padding=1)[:, 0] > 0
        hole_bhw[:, [0, -1], :] = True
        hole_bhw[:, :, [0, -1]] = True
        self.normals_cam_bhw3 = normals_bhw3
        self.has_normal_bhw = ~hole_bhw & (normals_bhw3.norm(dim=-1) > 0.5)

    def points_and_normals(self, world_T_cam_b44: F64, is_used_b: NDArray[np.bool_]) -> tuple[F64, F64, F64]:
        """(p, 3) points, (p, 3) normals and (p,) m2 that each stands for, of the used frames, in the given frame."""
        points, normals, areas = [], [], []
        for i in np.flatnonzero(is_used_b):
            keep_hw = self.has_normal_bhw[i]
            point_p3, normal_p3 = self.points_cam_m_bhw3[i][keep_hw], self.normals_cam_bhw3[i][keep_hw]
            pose = point_p3.new_tensor(world_T_cam_b44[i])
            facing_p = (-(normal_p3 * point_p3).sum(-1) / point_p3.norm(dim=-1)).clamp(min=0.1)
            area_p = point_p3[:, 2] ** 2 / (self.K_b33[i, 0, 0] * self.K_b33[i, 1, 1] * facing_p)
            points.append(transform(pose, point_p3).cpu().numpy())
            normals.append((normal_p3 @ pose[:3, :3].T).cpu().numpy())
            areas.append(area_p.cpu().numpy())
        return tuple(np.concatenate(part).astype(np.float64) for part in (points, normals, areas))  # type: ignore[return-value]


def _coarse_views(recording: Recording) -> _Views:
    import torch

    assert recording.K_depth_b33 is not None
    depths = []
    stride = 1
    for i in progress(range(len(recording)), "depth read"):
        depth_m_hw = recording.depth_m_hw(i)
        stride = max(1, round(depth_m_hw.shape[1] / 160))
        depths.append(torch.from_numpy(np.ascontiguousarray(depth_m_hw[::stride, ::stride])))
    K_b33 = torch.tensor(recording.K_depth_b33, dtype=torch.float32)
    K_b33[:, :2] /= stride  # every s-th pixel: pixel x of the coarse view is pixel s * x of the full one
    device = compute_device()
    return _Views(torch.stack(depths).to(device), K_b33.to(device))


def _disagreement_m(views: _Views, pose_b44: F64, i: int, j: int) -> float:
    """Median |difference| in metres between frame i's depth seen from j and j's own; NaN where under 10 % overlaps."""
    points_i = views.points_cam_m_bhw3[i, ::2, ::2][views.depth_m_bhw[i, ::2, ::2] > 0]
    cam_j_T_cam_i = np.linalg.inv(pose_b44[j]) @ pose_b44[i]
    pixel_p2, z_p = project(transform(points_i.new_tensor(cam_j_T_cam_i), points_i), views.K_b33[j])
    height, width = views.depth_m_bhw.shape[1:]
    x_p, y_p = pixel_p2.round().long().unbind(-1)
    inside_p = (z_p > 0.05) & (x_p >= 0) & (x_p < width) & (y_p >= 0) & (y_p < height)
    seen_p = views.depth_m_bhw[j, y_p[inside_p], x_p[inside_p]]
    difference_p = (seen_p - z_p[inside_p]).abs()[seen_p > 0]
    return float(difference_p.median()) if len(difference_p) > max(20, 0.1 * len(points_i)) else float("nan")


def _cut_jumps(
    frames: Frames, pose_b44: F64, views: _Views, params: OdometryParams
) -> tuple[NDArray[np.bool_], F64, tuple[tuple[int, str], ...]]:
    b = len(pose_b44)
    pair_m = np.array([_disagreement_m(views, pose_b44, i, i + 1) for i in range(b - 1)])
    step_m = np.linalg.norm(np.diff(pose_b44[:, :3, 3], axis=0), axis=1)
    usual_m = float(np.nanmedian(pair_m)) if np.isfinite(pair_m).any() else float("nan")
    if np.isnan(usual_m):
        raise ScanRejected(
            "odometry",
            expected="neighbouring frames that show the same surfaces",
            received=f"{b} frames of which no two neighbours overlap",
            do="Walk slowly and turn slowly, so that each frame shows much of the one before.",
        )
    if usual_m > 4 * params.jump_m:
        raise ScanRejected(
            "odometry",
            expected=f"neighbouring frames whose depths agree to {100 * params.jump_m:.0f} cm",
            received=f"a median difference of {100 * usual_m:.0f} cm; poses and depth do not belong together",
            do="Run `geomagic scan check` on this scan: it names a wrong pose convention.",
        )
    limit_m = max(params.jump_m, params.jump_ratio * usual_m)
    is_jump = (pair_m > limit_m) | ((step_m > params.longest_step_m) & (step_m > 10 * np.median(step_m)))
    pieces = np.split(np.arange(b), np.flatnonzero(is_jump) + 1)

    is_used_b = np.zeros(b, bool)
    waiting = sorted(pieces, key=lambda piece: (-len(piece), piece[0]))
    is_used_b[waiting.pop(0)] = True
    fits = True
    while fits and waiting:  # a piece that fits what is kept already may connect another
        fits = False
        for k, piece in enumerate(waiting):
            difference_m = _disagreement_with_used(views, pose_b44, piece, is_used_b)
            if difference_m <= limit_m:
                is_used_b[piece] = True
                del waiting[k]
                fits = True
                break
    cuts = {}
    for piece in waiting:
        difference_m = _disagreement_with_used(views, pose_b44, piece, is_used_b)
        reason = "jump: nothing else in the scan shows the same place"
        if not np.isnan(difference_m):
            reason = f"jump: its depth lies {100 * difference_m:.0f} cm off the rest of the scan"
        cuts.update({int(frames.scan_frame_b[i]): reason for i in piece})
    with_neighbours = np.stack([np.append(np.nan, pair_m), np.append(pair_m, np.nan)])
    disagreement_m_b = np.where(np.isnan(with_neighbours).all(0), np.nan, np.fmin(*with_neighbours))
    return is_used_b, disagreement_m_b, tuple(sorted(cuts.items()))


def _disagreement_with_used(
    views: _Views, pose_b44: F64, piece: NDArray[np.int64], is_used_b: NDArray[np.bool_]
) -> float:
    """Median disagreement in metres of a piece of the walk with used frames that look the same way; NaN without any."""
    used = np.flatnonzero(is_used_b)
    found = []
    for i in piece[np.unique(np.linspace(0, len(piece) - 1, 10).round().astype(int))]:
        away_m = np.linalg.norm(pose_b44[used, :3, 3] - pose_b44[i, :3, 3], axis=1)
        alike = pose_b44[used, :3, 2] @ pose_b44[i, :3, 2]
        for j in used[np.argsort(away_m - alike, kind="stable")[:3]]:
            if pose_b44[j, :3, 2] @ pose_b44[i, :3, 2] > 0.7:
                found.append(_disagreement_m(views, pose_b44, int(i), int(j)))
    return float(np.nanmedian(found)) if np.isfinite(found).any() else float("nan")


def _up_from_floor(views: _Views, scan_T_cam_b44: F64, is_used_b: NDArray[np.bool_]) -> F64:
    """(3,) direction that is up in the scan: most horizontal surfaces of a room (floor, ceiling, tables) agree on it.

    A camera is held level about one of its image axes; that tells up from sideways, roughly. Nobody scans with
    the picture upside down: from depth alone a ceiling seen so would pass for a floor.
    """
    points_p3, normals_p3, area_p = views.points_and_normals(scan_T_cam_b44, is_used_b)
    best_score, best_up_3 = 0.0, None
    for axis, sign in ((1, -1.0), (0, -1.0), (0, 1.0)):
        mean_3 = sign * scan_T_cam_b44[is_used_b, :3, axis].mean(0)
        steadiness = float(np.linalg.norm(mean_3))
        if steadiness < 0.3:
            continue
        up_3 = mean_3 / steadiness
        for reach_deg in (40.0, 20.0, 10.0, 5.0, 5.0):
            cosine_p = normals_p3 @ up_3
            near_p = np.abs(cosine_p) > np.cos(np.radians(reach_deg))
            if not near_p.any():
                break
            up_3 = (area_p[near_p, None] * np.sign(cosine_p[near_p, None]) * normals_p3[near_p]).sum(0)
            up_3 /= np.linalg.norm(up_3)
        camera_height_m = np.median(scan_T_cam_b44[is_used_b, :3, 3] @ up_3)
        is_below_p = (normals_p3 @ up_3 > np.cos(np.radians(5.0))) & (points_p3 @ up_3 < camera_height_m - 0.2)
        score = steadiness * float(area_p[is_below_p].sum())
        if score > best_score:
            best_score, best_up_3 = score, up_3
    if best_up_3 is None or best_score < 0.01 * area_p.sum():
        raise ScanRejected(
            "odometry",
            expected="the direction of gravity, from the device or from a visible floor",
            received="a scan without gravity that shows no floor",
            do="Walk once around with the phone tilted down, so that the floor is in view.",
        )
    return best_up_3


def _find_floor(
    views: _Views, world_T_cam_b44: F64, is_used_b: NDArray[np.bool_], params: OdometryParams
) -> Floor | None:
    camera_z_m = float(np.median(world_T_cam_b44[is_used_b, 2, 3]))
    return find_floor(*views.points_and_normals(world_T_cam_b44, is_used_b), camera_z_m, params.floor_tilt_deg)


def _orthonormal(pose_b44: F64) -> F64:
    """The nearest rigid poses: removes what is left of rounding in text files (polar decomposition)."""
    u, _, vt = np.linalg.svd(pose_b44[:, :3, :3])
    rigid = pose_b44.copy()
    rigid[:, :3, :3] = u @ vt
    return rigid
