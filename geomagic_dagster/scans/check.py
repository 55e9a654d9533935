"""Says what is wrong with a scan, from the scan alone, and what to do about it.

Belongs here: what a careful person would look at before trusting an upload, each as a function that
gives findings. Does not belong here: mending anything. A wrong convention is named, with the figures
that show it, and never converted: the person who knows how the scan was made decides.

`check_path(path)` and `check_scan(scan)` give a report, `raise_errors(report)` refuses what can never
work, `render(report)` shows it on one screen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.agreement import UNIT_FACTORS, centimetres, poses_against_depth
from geomagic_dagster.scans.check_images import WORDS, Images, Kind, count
from geomagic_dagster.scans.files import UPLOAD_AGAIN
from geomagic_dagster.scans.formats import F64, Finding, Reading
from geomagic_dagster.scans.reader import read_all

if TYPE_CHECKING:
    from rich.console import RenderableType

ROTATION_TOLERANCE = 5e-3
"""Largest entry of R'R - I. Text of four digits stays below 1e-3; at 5e-3 a wall 3 m away moves by 1.5 cm."""
FOV_DEGREES = (15.0, 150.0)
"""A phone's tele lens has 25, its widest 120."""
OFF_CENTRE = 0.12
"""Of the image: no phone's principal point lies further from the middle."""
ROOM_DEPTH_M = (0.5, 6.0)
"""Between these lies the median depth of a walk through a room; commonly 1 to 5 m."""
POSSIBLE_DEPTH_M = (0.15, 15.0)
"""Outside these it is the unit that is wrong, not the room."""
MIN_COVERAGE = 0.05
"""Of a depth image; below, a frame sees next to nothing."""


@dataclass(frozen=True)
class ScanReport:
    """What was found in a scan, and what is wrong with it. None: not there, or unknown."""

    name: str
    findings: tuple[Finding, ...]
    """Errors first, then warnings, then notes."""
    source_format: str | None = None
    frames: int | None = None
    rgb_wh: tuple[int, int] | None = None
    depth_wh: tuple[int, int] | None = None
    duration_s: float | None = None
    path_m: float | None = None
    """Length of the camera's way."""
    extent_m_3: tuple[float, float, float] | None = None
    """Edges of the box around the camera's way, x y z."""
    median_depth_m: float | None = None
    depth_coverage: float | None = None
    """Share of pixels that have depth."""
    disagreement_m: float | None = None
    """Median distance between the depth of neighbouring frames, put together by the poses."""
    is_metric: bool | None = None
    has_gravity: bool | None = None
    device: str | None = None
    consent: str | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def check_path(path: Path | str) -> ScanReport:
    """Reads and checks whatever lies there; what cannot be read is a report with one error."""
    try:
        return _check(read_all(path))
    except ScanRejected as rejected:
        return ScanReport(os.path.basename(os.path.abspath(path)), (_error_of(rejected),))


def check_scan(scan: Scan) -> ScanReport:
    """Checks a scan in memory. Decodes every image once, a few at a time."""
    return _check(Reading(scan))


def raise_errors(report: ScanReport) -> None:
    """Raises: ScanRejected with the first error, and how many more there are."""
    if report.errors:
        first, *others = report.errors
        more = f" (And {len(others)} more: {'; '.join(other.place for other in others)}.)" if others else ""
        raise ScanRejected(first.place, expected=first.expected, received=first.received, do=first.do + more)


def render(report: ScanReport) -> RenderableType:
    """One screen: what was found, what is wrong, what to do. For `rich.print`."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    for label, value in _facts(report):
        facts.add_row(Text(label, style="dim"), Text(value))
    parts: list[RenderableType] = [Text(report.name, style="bold"), facts]
    for finding in report.findings:
        style = {"error": "bold red", "warning": "yellow", "note": "cyan"}[finding.severity]
        parts.append(Text.assemble((f"\n{finding.severity}  ", style), (finding.place, "bold")))
        for label, words in (("expected", finding.expected), ("got", finding.received), ("do", finding.do)):
            parts.append(Text.assemble((f"  {label:9}", "dim"), words))
    errors = len(report.errors)
    verdict = (
        "This scan can be processed." if not errors else f"This scan cannot be processed: {count(errors, 'error')}."
    )
    parts.append(Text(f"\n{verdict}", style="green" if not errors else "bold red"))
    return Group(*parts)


def _facts(report: ScanReport) -> Iterator[tuple[str, str]]:
    if report.frames is None:
        return
    size = {label: f"{wh[0]}x{wh[1]}" for label, wh in (("colour", report.rgb_wh), ("depth", report.depth_wh)) if wh}
    yield "format", f"{report.source_format}, {report.frames} frames, device {report.device}"
    yield "images", ", ".join(f"{label} {wh}" for label, wh in size.items()) or "none that can be read"
    unit = "m" if report.is_metric else "units of unknown length"
    if report.path_m is not None and report.extent_m_3 is not None:
        extent = " x ".join(f"{edge:.1f}" for edge in report.extent_m_3)
        yield "walk", f"{report.duration_s:.1f} s, {report.path_m:.1f} {unit}, within {extent} {unit}"
    if report.median_depth_m is not None:
        yield "depth", f"median {report.median_depth_m:.3g} m, {report.depth_coverage:.0%} of the pixels"
    if report.disagreement_m is not None:
        yield "agreement", f"neighbouring frames {centimetres(report.disagreement_m)} apart (median)"
    yield "gravity", "given by the device" if report.has_gravity else "not given (the floor has to tell)"
    yield "consent", str(report.consent)


# --- the checks, in the order in which they depend on each other --------------------------------


@np.errstate(over="ignore", invalid="ignore")  # what came may be any number at all
def _check(reading: Reading) -> ScanReport:
    scan, recording = reading.scan, reading.scan.recording
    findings = list(reading.remarks)
    findings += _parts(scan)
    name_of = _frame_names(reading)
    findings += _times(recording.timestamp_s_b, name_of)
    findings += _pose_matrices(scan.scan_T_cam_b44, name_of)
    looked = {kind: Images(kind, sequence, reading) for kind, sequence in _sequences(scan).items()}
    for images in looked.values():
        findings += images.findings
    intrinsics: dict[Kind, F64 | None] = {"rgb": recording.K_rgb_b33, "depth": recording.K_depth_b33}
    for kind, K_b33 in intrinsics.items():
        if kind in looked:
            findings += _intrinsics(kind, K_b33, looked[kind].size_wh)
    depth = looked.get("depth")
    if depth is not None:
        findings += _depth_values(scan, depth)
    findings += _gravity(scan)

    disagreement_m = None
    if not any(finding.severity == "error" for finding in findings):
        found, disagreement_m = poses_against_depth(reading)
        findings += found
    pose_b44 = scan.scan_T_cam_b44
    way_b3 = pose_b44[:, :3, 3] if pose_b44 is not None and np.isfinite(pose_b44).all() else None
    return ScanReport(
        name=scan.name,
        findings=tuple(sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))),
        source_format=scan.source_format,
        frames=len(recording),
        rgb_wh=looked["rgb"].size_wh if "rgb" in looked else None,
        depth_wh=depth.size_wh if depth else None,
        duration_s=float(np.ptp(recording.timestamp_s_b)) if len(recording) else 0.0,
        path_m=float(np.linalg.norm(np.diff(way_b3, axis=0), axis=1).sum()) if way_b3 is not None else None,
        extent_m_3=tuple(np.ptp(way_b3, axis=0).tolist()) if way_b3 is not None else None,
        median_depth_m=depth.median_units * recording.metres_per_depth_unit if depth and depth.median_units else None,
        depth_coverage=depth.coverage if depth else None,
        disagreement_m=disagreement_m,
        is_metric=scan.is_metric,
        has_gravity=scan.down_scan_3 is not None,
        device=scan.device,
        consent=scan.consent,
    )


def _parts(scan: Scan) -> Iterator[Finding]:
    """Whether all is there that a room needs."""
    frames, recording = len(scan.recording), scan.recording
    if recording.depth is None:
        yield Finding(
            "error",
            "depth",
            "depth images" + ("" if scan.is_metric else " and a metric scale"),
            "colour images only" + ("" if scan.is_metric else ", in a scale that nobody knows"),
            "Scan again with a phone that measures depth, and export the depth with it.",
        )
    elif not scan.is_metric:
        yield Finding(
            "error",
            "scale",
            "poses in metres",
            "poses in a scale that nobody knows",
            "Export the poses of the device itself, not of structure from motion.",
        )
    if recording.rgb is None:
        yield Finding(
            "warning",
            "colour",
            "colour images",
            "none; the room will be grey",
            "Nothing, if shape and size are enough; else export the scan with its colour images.",
        )
    if scan.scan_T_cam_b44 is None:
        yield Finding("error", "poses", "a camera pose for each frame", "none", "Export the scan with its poses.")
    if frames < 2:
        yield Finding(
            "error",
            "frames",
            "a walk through the room, at least two frames",
            count(frames, "frame"),
            "Scan again: walk once around the room while the phone records.",
        )
    counted = {WORDS[kind]: len(sequence) for kind, sequence in _sequences(scan).items()}
    matrices = {"poses": scan.scan_T_cam_b44, "K of colour": recording.K_rgb_b33, "K of depth": recording.K_depth_b33}
    counted |= {what: len(each) for what, each in matrices.items() if each is not None}
    if any(count != frames for count in counted.values()):
        yield Finding(
            "error",
            "frames",
            f"{frames} of each",
            ", ".join(f"{count} {what}" for what, count in counted.items()),
            UPLOAD_AGAIN,
        )


def _frame_names(reading: Reading) -> Callable[[int], str]:
    """Names a frame by its number and, where it came from files, its image."""
    names = reading.image_names.get("rgb") or reading.image_names.get("depth")
    return lambda i: f"frame {i} ({names[i]})" if names else f"frame {i}"


def _times(timestamp_s_b: F64, name_of: Callable[[int], str]) -> Iterator[Finding]:
    if not np.isfinite(timestamp_s_b).all():
        frame = int(np.flatnonzero(~np.isfinite(timestamp_s_b))[0])
        yield Finding(
            "error", f"time of {name_of(frame)}", "a number of seconds", f"{timestamp_s_b[frame]}", UPLOAD_AGAIN
        )
        return
    backwards = np.flatnonzero(np.diff(timestamp_s_b) <= 0)
    if len(backwards):
        i = int(backwards[0])
        yield Finding(
            "error",
            f"time of {name_of(i + 1)}",
            f"later than frame {i}, at {timestamp_s_b[i]:.6f} s",
            f"{timestamp_s_b[i + 1]:.6f} s; time does not rise at {count(len(backwards), 'frame')}",
            "Put the frames in the order in which they were taken, each once, and upload again.",
        )


def _pose_matrices(pose_b44: F64 | None, name_of: Callable[[int], str]) -> Iterator[Finding]:
    """Rigid motions: finite, last row 0 0 0 1, rotation orthonormal with det +1. Hartley & Zisserman, 2.4 and 6.1."""
    if pose_b44 is None:
        return
    expected, do = "a rotation and a translation, last row 0 0 0 1", "Export the poses again."

    def first(bad_b: NDArray[np.bool_], says: Callable[[int], str], do: str = do) -> Finding:
        i = int(np.flatnonzero(bad_b)[0])
        received = f"{says(i)}; {int(bad_b.sum())} of {len(bad_b)} poses"
        return Finding("error", f"pose of {name_of(i)}", expected, received, do)

    infinite_b: NDArray[np.bool_] = np.array(~np.isfinite(pose_b44).all(axis=(1, 2)))
    if infinite_b.any():
        yield first(infinite_b, lambda i: "NaN or infinity")
        return
    last_row_b = np.abs(pose_b44[:, 3] - [0, 0, 0, 1]).max(axis=1) > 1e-6
    if last_row_b.any():
        if np.abs(pose_b44[:, :, 3] - [0, 0, 0, 1]).max() < 1e-6:
            yield first(last_row_b, lambda i: "the matrix transposed (column-major)", "Transpose each pose matrix.")
        else:
            yield first(last_row_b, lambda i: f"the last row {pose_b44[i, 3].tolist()}")
        return
    R_b33 = pose_b44[:, :3, :3].clip(-1e3, 1e3)  # beyond, it is no rotation anyhow
    det_b = np.linalg.det(R_b33)
    unorthonormal_b = np.abs(np.swapaxes(R_b33, 1, 2) @ R_b33 - np.eye(3)).max(axis=(1, 2)) > ROTATION_TOLERANCE
    mirrored_b = ~unorthonormal_b & (det_b < 0)
    if unorthonormal_b.any():
        yield first(unorthonormal_b, lambda i: f"no rotation (det R = {det_b[i]:.3g}, where it is 1)")
    if mirrored_b.any():
        yield first(
            mirrored_b,
            lambda i: "a mirrored one (det R = -1: a left-handed world or a flipped axis)",
            "Negate the axis that was flipped, in the export.",
        )


def _intrinsics(kind: Kind, K_b33: F64 | None, size_wh: tuple[int, int] | None) -> Iterator[Finding]:
    place, again = f"K of the {WORDS[kind]} images", "Export the camera's intrinsics again."
    expected = "fx 0 cx, 0 fy cy, 0 0 1 in pixels, fx and fy above 0"
    if K_b33 is None:
        yield Finding("error", place, expected, "none", again)
        return
    bad_b = ~np.isfinite(K_b33).all(axis=(1, 2)) | (np.abs(K_b33[:, 2] - [0, 0, 1]).max(axis=1) > 1e-6)
    bad_b |= (K_b33[:, 0, 0] <= 0) | (K_b33[:, 1, 1] <= 0)
    if bad_b.any():
        yield Finding("error", place, expected, f"{K_b33[np.flatnonzero(bad_b)[0]].tolist()}", again)
        return
    if size_wh is None:
        return
    size = np.array(size_wh)
    is_of = f"one for {size[0]}x{size[1]}"
    focal_b2, centre_b2 = K_b33[:, [0, 1], [0, 1]], K_b33[:, :2, 2]
    # 1 where K is for this size and the lens sits in the middle
    ratio_2 = np.median((2 * centre_b2 + 1) / size, axis=0)
    if (np.abs(ratio_2 - 1) > OFF_CENTRE).all() and abs(ratio_2[0] / ratio_2[1] - 1) < OFF_CENTRE:
        factor, other = float(np.sqrt(ratio_2.prod())), np.rint(np.median(2 * centre_b2 + 1, axis=0)).astype(int)
        yield Finding(
            "error",
            place,
            is_of,
            f"one for {factor:.3g} times that, about {other[0]}x{other[1]}",
            f"Multiply fx, fy, cx, cy by {1 / factor:.4g}, or upload the images of that size.",
        )
        return
    if size[0] != size[1] and (np.abs(np.median((2 * centre_b2[:, ::-1] + 1) / size, axis=0) - 1) < OFF_CENTRE).all():
        yield Finding(
            "error",
            place,
            is_of,
            f"one for {size[1]}x{size[0]} (cx and cy exchanged)",
            "Turn either the images or K by 90 degrees.",
        )
        return
    centre_2 = np.median(centre_b2, axis=0)
    if ((centre_2 < 0) | (centre_2 > size - 1)).any() or (np.abs(ratio_2 - 1) > 2 * OFF_CENTRE).any():
        severity = "error" if ((centre_2 < 0) | (centre_2 > size - 1)).any() else "warning"
        yield Finding(
            severity,
            place,
            f"{is_of}, its principal point near the middle",
            f"({centre_2[0]:.1f}, {centre_2[1]:.1f})",
            "Look whether the images were cropped after K was taken.",
        )
    fov_2 = np.degrees(2 * np.arctan(size / 2 / np.median(focal_b2, axis=0)))
    if ((fov_2 < FOV_DEGREES[0]) | (fov_2 > FOV_DEGREES[1])).any():
        yield Finding(
            "error",
            place,
            f"a field of view of {FOV_DEGREES[0]:g} to {FOV_DEGREES[1]:g} degrees",
            f"{fov_2[0]:.1f} x {fov_2[1]:.1f} degrees",
            "Give the focal lengths in pixels of these images.",
        )


def _depth_values(scan: Scan, depth: Images) -> Iterator[Finding]:
    recording = scan.recording
    looks = [look for look in depth.looks if look.fault is None]
    if not looks:
        return
    zeros, saturated = (float(np.mean([getattr(look, what) for look in looks])) for what in ("zeros", "saturated"))
    is_undeclared = 65535 not in recording.invalid_depth_units
    if not depth.coverage or (is_undeclared and saturated > 0.5):
        yield Finding(
            "error",
            "depth values",
            "distances to what the camera sees",
            f"65535 (no depth) in {saturated:.0%} of the pixels, 0 in {zeros:.0%}",
            "Export the depth again; this one is empty.",
        )
        return
    if is_undeclared and saturated > 0.001:
        yield Finding(
            "warning",
            "depth values",
            "0 where there is no depth",
            f"65535 in {saturated:.1%} of the pixels",
            "Write 0 where there is no depth.",
        )
    empty = sum(look.coverage < MIN_COVERAGE for look in looks)
    if empty:
        yield Finding(
            "warning",
            "depth values",
            f"depth in at least {MIN_COVERAGE:.0%} of each image",
            f"less in {empty} of {len(looks)} images",
            "Keep 0.5 to 4 m from walls and furniture.",
        )
    yield from _depth_unit(depth.median_units * recording.metres_per_depth_unit, recording.metres_per_depth_unit)


def _depth_unit(median_m: float, metres_per_unit: float) -> Iterator[Finding]:
    if ROOM_DEPTH_M[0] <= median_m <= ROOM_DEPTH_M[1]:
        return
    expected = "a median depth of 1 to 5 m, as in a room"
    received = f"{median_m:.3g} m (one unit taken as {metres_per_unit:.4g} m)"
    if POSSIBLE_DEPTH_M[0] <= median_m <= POSSIBLE_DEPTH_M[1]:
        yield Finding("warning", "depth unit", expected, received, "Look whether the unit is right; else nothing.")
        return
    fitting = [f for f in (1000.0, 1e-3, *UNIT_FACTORS) if 1.0 <= median_m * f <= 5.0] or [1.0 / median_m]
    stored = {1000.0: "metres stored where millimetres belong", 1e-3: "millimetres taken for metres"}
    like = stored.get(fitting[0], "another unit")
    yield Finding(
        "error",
        "depth unit",
        expected,
        f"{received}; looks like {like}: {fitting[0]:g} times as much would fit",
        f"Store depth so that one unit is {metres_per_unit:.4g} m (multiply by {fitting[0]:g}).",
    )


def _gravity(scan: Scan) -> Iterator[Finding]:
    if scan.down_scan_3 is None or scan.scan_T_cam_b44 is None:
        return
    down_3 = np.array(scan.down_scan_3)
    if not np.isfinite(down_3).all() or abs(np.linalg.norm(down_3) - 1) > 1e-3:
        yield Finding("error", "gravity", "a direction of length 1", f"{scan.down_scan_3}", "Export the scan again.")
        return
    # An image's y points down when the phone lies across, sideways when it stands: never up for most of a walk.
    upright = float(np.median(scan.scan_T_cam_b44[:, :3, 1] @ down_3))
    if upright < -0.5:
        yield Finding(
            "warning",
            "gravity",
            "images whose lower edge points down, or sideways",
            f"most of them upside down (cosine {upright:.2f})",
            "Look whether gravity has the wrong sign, or the poses OpenGL camera axes.",
        )


# --- words ----------------------------------------------------------------------------------------


def _sequences(scan: Scan) -> dict[Kind, EncodedImages]:
    recording = scan.recording
    found: dict[Kind, EncodedImages | None] = {
        "rgb": recording.rgb,
        "depth": recording.depth,
        "depth_confidence": recording.depth_confidence,
    }
    return {kind: sequence for kind, sequence in found.items() if sequence is not None}


def _error_of(rejected: ScanRejected) -> Finding:
    return Finding("error", rejected.place, rejected.expected, rejected.received, rejected.do)
