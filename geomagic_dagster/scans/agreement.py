"""Do the poses fit the depth? And if not: which convention, taken instead, would make them fit?

Neighbouring frames see the same surfaces. So the depth of one, moved into the other by the poses, has to lie
on the other's depth. Where it does not, every known way to take the poses is tried, and every known
unit of depth; the one that fits is named, with its figure beside the given one. Nothing is converted.

Does not belong here: checks that need no poses and depth together (check.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.formats import F64, OPENGL_T_OPENCV_44, Finding, Reading

UNIT_FACTORS = (100.0, 0.01, 10.0, 0.1, 5.0, 0.2, 4.0, 0.25, 6.5535, 1 / 6.5535)
"""Between the units that depth is stored in, metres to millimetres apart: centimetres, 1/5000, 1/4000, 1/6553.5 m."""
PAIRS = 24
PAIR_POINTS = 4000
PAIR_DEGREES = 15.0
"""Frames are compared with one turned by about this: enough for a wrong convention to show, and they overlap."""
PAIR_FRAMES = 30
MIN_OVERLAP = 0.1
"""Of one frame's points that have to fall on depth of the other."""
AGREEMENT = 0.03
"""Median disagreement as a fraction of depth: 6 cm at 2 m. A HoloLens has 0.3 per cent, a Kinect 1."""
AGREEMENT_M = 0.08
"""And in metres: the larger depth is taken, the less its fraction tells."""
DISAGREEMENT = 0.1
"""Beyond, nothing that is built from these poses is true to scale."""
CLEARLY_BETTER = 0.4
"""Another convention is named when its disagreement is below this part of the given one's."""


def poses_against_depth(reading: Reading) -> tuple[list[Finding], float | None]:
    """Findings, and the median disagreement in metres as the scan is."""
    scan = reading.scan
    given_b44 = scan.scan_T_cam_b44
    assert given_b44 is not None  # else there is an error already
    pairs = list(_pairs(scan))
    if not pairs:
        return [], None

    def each(pose_b44: F64, depth_factor: float = 1.0) -> F64:
        return np.array([pair.disagreement(pose_b44[pair.a], pose_b44[pair.b], depth_factor) for pair in pairs])

    def fit(pose_b44: F64, depth_factor: float = 1.0) -> tuple[float, float]:
        metres, fraction = np.median(each(pose_b44, depth_factor), axis=0).tolist()
        return metres, fraction

    apart_m, fraction = fit(given_b44)
    measured = apart_m if np.isfinite(apart_m) else None
    if fraction <= AGREEMENT and apart_m <= AGREEMENT_M:
        return [], measured
    received = f"{centimetres(apart_m)} apart" if measured is not None else "frames that do not meet"
    promised = _Convention(False, reading.camera_axes, False, reading.zup_R_file_33)
    expected = f"neighbouring frames that agree to a few centimetres, with poses {promised.words()}"

    conventions = [(*fit(way.poses(file_b44)), way) for way, file_b44 in _conventions(reading, given_b44)]
    factors = [(*fit(given_b44, factor), factor) for factor in UNIT_FACTORS]
    best_m, best_fraction, best = min([*conventions, *factors], key=lambda fitted: fitted[1])
    if best_fraction <= min(AGREEMENT, CLEARLY_BETTER * fraction):
        if isinstance(best, _Convention):
            place, do = "poses", f"The poses are {best.words()}. {best.mend(promised)}"
            received += f"; taken as {best.words()} they are {centimetres(best_m)} apart"
        else:
            place, do = "depth and poses", f"Store both in metres: their units differ by a factor of {best:.4g}."
            received += f"; with depth {best:.4g} times as large they are {centimetres(best_m)} apart"
        return [Finding("error", place, expected, received, do)], measured
    if measured is None:
        overlapping = np.array([f for _, f in each(given_b44) if np.isfinite(f)])
        agrees = len(overlapping) and float(np.median(overlapping)) <= DISAGREEMENT
        apart = f"{len(pairs) - len(overlapping)} of {len(pairs)} pairs"
        received = f"frames without overlap ({apart}), under any known convention of poses"
        do = "Walk slowly, so that each view shows much of the last one, and scan again."
        expected = "neighbouring frames that see the same surfaces"
        return [Finding("warning" if agrees else "error", "poses", expected, received, do)], measured
    severity = "error" if fraction > DISAGREEMENT else "warning"
    received += f" ({fraction:.0%} of the depth), and no other known convention of poses fits"
    do = "Look at K, the times and the poses of the export; if tracking was poor, scan again, slowly, in good light."
    return [Finding(severity, "poses", expected, received, do)], measured


class _Convention(NamedTuple):
    """A way in which the poses of a file may be meant."""

    is_inverted: bool
    camera_axes: Literal["OpenCV", "OpenGL"]
    is_millimetres: bool
    zup_R_file_33: F64

    def words(self) -> str:
        return ", ".join(
            [
                "world-to-camera (inverted)" if self.is_inverted else "camera-to-world",
                f"{self.camera_axes} camera axes",
                "millimetres" if self.is_millimetres else "metres",
            ]
        )

    def poses(self, file_b44: F64) -> F64:
        pose_b44 = file_b44.copy()
        if self.is_millimetres:
            pose_b44[:, :3, 3] /= 1000
        if self.is_inverted:
            pose_b44 = invert_pose(pose_b44)
        return pose_b44 @ OPENGL_T_OPENCV_44 if self.camera_axes == "OpenGL" else pose_b44

    def mend(self, promised: _Convention) -> str:
        steps = []
        if self.is_inverted:
            steps.append("invert each pose matrix")
        if self.camera_axes != promised.camera_axes:
            steps.append("negate the second and third column of each camera-to-world matrix")
        if self.is_millimetres:
            steps.append("divide the translations by 1000")
        return f"In the export, {', '.join(steps)}; then upload again."


class _Pair(NamedTuple):
    """Depth of one frame as points, and the depth image of another, to be compared under many poses."""

    a: int
    b: int
    points_a_m_3n: F64
    depth_b_m_hw: NDArray[np.float32]
    K_b_33: F64

    @np.errstate(over="ignore", invalid="ignore")  # under a wrong convention points lie anywhere
    def disagreement(self, a_pose_44: F64, b_pose_44: F64, depth_factor: float = 1.0) -> tuple[float, float]:
        """Median |z of a's points in b - depth of b|, in metres and as a fraction of z; infinite without overlap."""
        points_a = self.points_a_m_3n * depth_factor
        b_T_a_44 = invert_pose(b_pose_44) @ a_pose_44
        x, y, z = b_T_a_44[:3, :3] @ points_a + b_T_a_44[:3, 3:]
        in_front = z > 1e-3 * depth_factor
        x, y, z = x[in_front], y[in_front], z[in_front]
        height, width = self.depth_b_m_hw.shape
        K = self.K_b_33
        u, v = np.rint(x / z * K[0, 0] + K[0, 2]), np.rint(y / z * K[1, 1] + K[1, 2])
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        z, seen = z[inside], self.depth_b_m_hw[v[inside].astype(int), u[inside].astype(int)] * depth_factor
        z, seen = z[seen > 0], seen[seen > 0]
        if len(z) < MIN_OVERLAP * points_a.shape[1] or not len(z):
            return np.inf, np.inf
        apart = np.abs(z - seen)
        return float(np.median(apart)), float(np.median(apart / seen))


def _conventions(reading: Reading, given_b44: F64) -> Iterator[tuple[_Convention, F64]]:
    """Every way to take the poses, with the poses as they stood in the file.

    Turning the world does not change how frames meet, unless the poses were inverted: then what the reader
    turned was the camera. So inverted poses are tried as the file had them, and as the scan has them.
    """
    untilted, unflipped = np.eye(3), given_b44
    if reading.camera_axes == "OpenGL":
        unflipped = given_b44 @ OPENGL_T_OPENCV_44
    file_44 = np.eye(4)
    file_44[:3, :3] = reading.zup_R_file_33.T
    for is_millimetres in (False, True):
        for axes in ("OpenCV", "OpenGL"):
            yield _Convention(False, axes, is_millimetres, untilted), unflipped
            yield _Convention(True, axes, is_millimetres, untilted), unflipped
            if not np.array_equal(file_44, np.eye(4)):
                yield _Convention(True, axes, is_millimetres, reading.zup_R_file_33), file_44 @ unflipped


def _pairs(scan: Scan) -> Iterator[_Pair]:
    """Up to PAIRS pairs of neighbouring frames over the whole walk, each turned against the other as far as is good."""
    recording, pose_b44 = scan.recording, scan.scan_T_cam_b44
    assert recording.K_depth_b33 is not None and pose_b44 is not None
    last = len(recording) - 1
    for a in np.unique(np.linspace(0, last - 1, min(PAIRS, last)).astype(int)).tolist():
        ahead = pose_b44[a + 1 : a + 1 + PAIR_FRAMES, :3, :3]
        # the angle between two frames is the same under every convention, so this choice favours none
        cosine = (np.einsum("ij,bij->b", pose_b44[a, :3, :3], ahead) - 1) / 2
        too_far = np.flatnonzero(cosine < np.cos(np.radians(PAIR_DEGREES)))
        b = a + max(1, int(too_far[0]) if len(too_far) else len(ahead))
        depth_m_hw, K = recording.depth_m_hw(a), recording.K_depth_b33[a]
        step = max(1, int(np.sqrt(depth_m_hw.size / PAIR_POINTS)))
        y, x = np.mgrid[0 : depth_m_hw.shape[0] : step, 0 : depth_m_hw.shape[1] : step].reshape(2, -1)
        z = depth_m_hw[y, x].astype(np.float64)
        x, y, z = x[z > 0], y[z > 0], z[z > 0]
        points_3n = np.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z])
        yield _Pair(a, b, points_3n, recording.depth_m_hw(b), recording.K_depth_b33[b])


def centimetres(metres: float) -> str:
    return f"{100 * metres:.1f} cm"
