"""Says what is wrong with a scan, from the scan alone, and what to do about it.

Belongs here: what a careful person would look at before trusting an upload, each as a function that
gives findings. Does not belong here: mending anything. A wrong convention is named, with the figures
that show it, and never converted: the person who knows how the scan was made decides.

`check_path(path)` and `check_scan(scan)` give a report, `raise_errors(report)` refuses what can never
work, `render(report)` shows it on one screen.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.cv.types import Scan
from geomagic_dagster.scans.files import UPLOAD_AGAIN
from geomagic_dagster.scans.formats import F64, OPENGL_T_OPENCV_44, Finding, Reading, shortened
from geomagic_dagster.scans.images import ImageHeader, image_header, what_it_is
from geomagic_dagster.scans.reader import read_all

if TYPE_CHECKING:
    from rich.console import RenderableType

Kind = Literal["rgb", "depth", "depth_confidence"]
WORDS: dict[Kind, str] = {"rgb": "colour", "depth": "depth", "depth_confidence": "confidence"}

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
DEPTH_FACTORS = (1000.0, 1e-3, 100.0, 0.01, 10.0, 0.1, 5.0, 0.2, 4.0, 0.25, 6.5535, 1 / 6.5535)
"""Between the units that depth is stored in: metres, centimetres, millimetres, 1/5000, 1/4000, 1/6553.5 m."""
MIN_COVERAGE = 0.05
"""Of a depth image; below, a frame sees next to nothing."""

PAIRS = 24
PAIR_POINTS = 4000
PAIR_DEGREES = 15.0
"""Frames are compared with one turned by about this: enough for a wrong convention to show, and they overlap."""
PAIR_FRAMES = 30
MIN_OVERLAP = 0.1
"""Of one frame's points that have to fall on depth of the other."""
AGREEMENT = 0.03
"""Median disagreement as a fraction of depth: 6 cm at 2 m. A HoloLens has 0.3 per cent, a Kinect 1."""
DISAGREEMENT = 0.1
"""Beyond, nothing that is built from these poses is true to scale."""
CLEARLY_BETTER = 0.4
"""Another convention is named when its disagreement is below this part of the given one's."""


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
        return ScanReport(Path(path).name, (_error_of(rejected),))


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
        "This scan can be processed." if not errors else f"This scan cannot be processed: {_count(errors, 'error')}."
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
        yield "agreement", f"neighbouring frames {_centimetres(report.disagreement_m)} apart (median)"
    yield "gravity", "given by the device" if report.has_gravity else "not given (the floor has to tell)"
    yield "consent", str(report.consent)


# --- the checks, in the order in which they depend on each other --------------------------------


def _check(reading: Reading) -> ScanReport:
    scan, recording = reading.scan, reading.scan.recording
    findings = list(reading.remarks)
    findings += _parts(scan)
    findings += _times(recording.timestamp_s_b)
    findings += _pose_matrices(scan.scan_T_cam_b44)
    looked = {kind: _Images(kind, sequence, reading) for kind, sequence in _sequences(scan).items()}
    for images in looked.values():
        findings += images.findings
    for kind, K_b33 in (("rgb", recording.K_rgb_b33), ("depth", recording.K_depth_b33)):
        if kind in looked and K_b33 is not None:
            findings += _intrinsics(kind, K_b33, looked[kind].size_wh)
    depth = looked.get("depth")
    if depth is not None:
        findings += _depth_values(scan, depth)
    findings += _gravity(scan)

    disagreement_m = None
    if not any(finding.severity == "error" for finding in findings):
        found, disagreement_m = _poses_against_depth(reading)
        findings += found
    way_b3 = scan.scan_T_cam_b44[:, :3, 3] if scan.scan_T_cam_b44 is not None else None
    has_way = way_b3 is not None and bool(np.isfinite(way_b3).all())
    return ScanReport(
        name=scan.name,
        findings=tuple(sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))),
        source_format=scan.source_format,
        frames=len(recording),
        rgb_wh=looked["rgb"].size_wh if "rgb" in looked else None,
        depth_wh=depth.size_wh if depth else None,
        duration_s=float(np.ptp(recording.timestamp_s_b)) if len(recording) else 0.0,
        path_m=float(np.linalg.norm(np.diff(way_b3, axis=0), axis=1).sum()) if has_way else None,
        extent_m_3=tuple(np.ptp(way_b3, axis=0).tolist()) if has_way else None,
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
        yield Finding("error", "colour", "colour images", "none", "Export the scan with its colour images.")
    if scan.scan_T_cam_b44 is None:
        yield Finding("error", "poses", "a camera pose for each frame", "none", "Export the scan with its poses.")
    if frames < 2:
        yield Finding(
            "error",
            "frames",
            "a walk through the room, at least two frames",
            _count(frames, "frame"),
            "Scan again: walk once around the room while the phone records.",
        )
    counted = {WORDS[kind]: len(sequence) for kind, sequence in _sequences(scan).items()}
    counted |= {"poses": len(scan.scan_T_cam_b44)} if scan.scan_T_cam_b44 is not None else {}
    if any(count != frames for count in counted.values()):
        yield Finding(
            "error",
            "frames",
            f"{frames} of each",
            ", ".join(f"{n} {what}" for what, n in counted.items()),
            UPLOAD_AGAIN,
        )


def _times(timestamp_s_b: F64) -> Iterator[Finding]:
    if not np.isfinite(timestamp_s_b).all():
        frame = int(np.flatnonzero(~np.isfinite(timestamp_s_b))[0])
        yield Finding("error", f"time of frame {frame}", "a number of seconds", f"{timestamp_s_b[frame]}", UPLOAD_AGAIN)
        return
    backwards = np.flatnonzero(np.diff(timestamp_s_b) <= 0)
    if len(backwards):
        i = int(backwards[0])
        yield Finding(
            "error",
            f"time of frame {i + 1}",
            f"later than frame {i}, at {timestamp_s_b[i]:.6f} s",
            f"{timestamp_s_b[i + 1]:.6f} s; time does not rise at {_count(len(backwards), 'frame')}",
            "Put the frames in the order in which they were taken, each once, and upload again.",
        )


def _pose_matrices(pose_b44: F64 | None) -> Iterator[Finding]:
    """Rigid motions: finite, last row 0 0 0 1, rotation orthonormal with det +1. Hartley & Zisserman, 2.4 and 6.1."""
    if pose_b44 is None:
        return
    expected, do = "a rotation and a translation, last row 0 0 0 1", "Export the poses again."

    def first(bad_b: NDArray[np.bool_], says: Callable[[int], str], do: str = do) -> Finding:
        i = int(np.flatnonzero(bad_b)[0])
        return Finding(
            "error", f"pose of frame {i}", expected, f"{says(i)}; {int(bad_b.sum())} of {len(bad_b)} poses", do
        )

    infinite_b = ~np.isfinite(pose_b44).all(axis=(1, 2))
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
    R_b33 = pose_b44[:, :3, :3]
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


def _intrinsics(kind: str, K_b33: F64, size_wh: tuple[int, int] | None) -> Iterator[Finding]:
    place, again = f"K of the {WORDS[kind]} images", "Export the camera's intrinsics again."
    expected = "fx 0 cx, 0 fy cy, 0 0 1 in pixels, fx and fy above 0"
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
    ratio_2 = np.median(
        (2 * centre_b2 + 1) / size, axis=0
    )  # 1 where K is for this size and the lens sits in the middle
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


class _Look(NamedTuple):
    """What decoding one image told."""

    header: ImageHeader | None
    fault: str | None
    median_units: float = 0.0
    coverage: float = 0.0
    zeros: float = 0.0
    saturated: float = 0.0


class _Images:
    """Every image of one kind, each decoded once: which are bad, how large they are, what depth they hold."""

    def __init__(self, kind: Kind, sequence: EncodedImages, reading: Reading) -> None:
        self.kind, self.findings = kind, []
        self._names = reading.image_names.get(kind) or [f"{WORDS[kind]} of frame {i}" for i in range(len(sequence))]
        invalid = reading.scan.recording.invalid_depth_units
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # decoding lets go of Python's lock
            self.looks = list(pool.map(lambda i: _look(kind, sequence, i, invalid), range(len(sequence))))
        good = [look for look in self.looks if look.fault is None and look.header is not None]
        sizes = Counter((look.header.width, look.header.height) for look in good if look.header)
        self.size_wh = sizes.most_common(1)[0][0] if sizes else None
        """The one that most have."""
        self.median_units = float(np.median([look.median_units for look in good if look.coverage] or [0.0]))
        self.coverage = float(np.mean([look.coverage for look in good])) if good else 0.0
        self.findings += self._faults()
        self.findings += self._sizes(sizes)

    def _faults(self) -> Iterator[Finding]:
        bad = [i for i, look in enumerate(self.looks) if look.fault is not None]
        if bad:
            wanted = {"rgb": "a whole PNG or JPEG in colour", "depth": "a whole 16-bit PNG of one channel"}
            more = f" ({len(bad)} of {len(self.looks)} images: {shortened([self._names[i] for i in bad])})"
            yield Finding(
                "error",
                self._names[bad[0]],
                wanted.get(self.kind, "a whole 8-bit PNG of one channel"),
                f"{self.looks[bad[0]].fault}{more if len(bad) > 1 else ''}",
                UPLOAD_AGAIN,
            )

    def _sizes(self, sizes: Counter[tuple[int, int]]) -> Iterator[Finding]:
        if len(sizes) > 1 and self.size_wh is not None:
            odd = [i for i, look in enumerate(self.looks) if look.header and look.header[1:3] != self.size_wh]
            width, height = self.looks[odd[0]].header[1:3]  # type: ignore[index]
            yield Finding(
                "error",
                self._names[odd[0]],
                f"{self.size_wh[0]}x{self.size_wh[1]} like most",
                f"{width}x{height}; {len(odd)} of {len(self.looks)} images differ",
                "Upload the images of one recording, all of one size.",
            )


def _look(kind: Kind, sequence: EncodedImages, index: int, invalid_units: Sequence[int]) -> _Look:
    import cv2

    try:
        encoded = sequence.encoded(index)
    except ScanRejected as rejected:  # the archive itself is damaged here
        return _Look(None, rejected.received)
    header = image_header(encoded)
    if header is None or (header.kind == "PNG" and b"IEND" not in encoded[-1024:]):
        return _Look(None, what_it_is(encoded))
    if kind == "rgb":
        if header.channels not in (3, 4) or header.bits > 8:
            return _Look(None, f"a {header.kind} of {_count(header.channels, 'channel')} of {header.bits} bits")
        # in grey at an eighth: all bytes are decoded, but a JPEG four times faster
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        return _Look(header, None if image is not None else what_it_is(encoded))
    if (header.kind, header.channels, header.bits) != ("PNG", 1, 16 if kind == "depth" else 8):
        return _Look(None, f"a {header.kind} of {_count(header.channels, 'channel')} of {header.bits} bits")
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return _Look(None, what_it_is(encoded))
    if kind != "depth":
        return _Look(header, None)
    some = image[::2, ::2]
    valid = some[~np.isin(some, invalid_units)]
    return _Look(
        header,
        None,
        float(np.median(valid)) if valid.size else 0.0,
        valid.size / some.size,
        float((some == 0).mean()),
        float((some == 65535).mean()),
    )


def _depth_values(scan: Scan, depth: _Images) -> Iterator[Finding]:
    recording = scan.recording
    looks = [look for look in depth.looks if look.fault is None]
    if not looks:
        return
    zeros, saturated = (float(np.mean([getattr(look, what) for look in looks])) for what in ("zeros", "saturated"))
    if zeros > 0.999 or saturated > 0.5:
        yield Finding(
            "error",
            "depth values",
            "distances to what the camera sees",
            "0 everywhere" if zeros > 0.999 else f"65535 (no depth) in {saturated:.0%} of the pixels",
            "Export the depth again; this one is empty.",
        )
        return
    if not depth.coverage:
        yield Finding(
            "error",
            "depth values",
            "distances to what the camera sees",
            "no valid depth in any frame",
            "Export the depth again; this one is empty.",
        )
        return
    if saturated > 0.001 and 65535 not in recording.invalid_depth_units:
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
    fitting = [f for f in DEPTH_FACTORS if 1.0 <= median_m * f <= 5.0] or [1.0 / median_m]
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


# --- poses against depth --------------------------------------------------------------------------


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


def _poses_against_depth(reading: Reading) -> tuple[list[Finding], float | None]:
    """Findings, and the median disagreement in metres as the scan is."""
    scan = reading.scan
    given_b44 = scan.scan_T_cam_b44
    assert given_b44 is not None  # else there is an error already
    pairs = list(_pairs(scan))
    if not pairs:
        return [], None

    def fit(pose_b44: F64, depth_factor: float = 1.0) -> tuple[float, float]:
        each = np.array([pair.disagreement(pose_b44[pair.a], pose_b44[pair.b], depth_factor) for pair in pairs])
        metres, fraction = np.median(each, axis=0).tolist()
        return metres, fraction

    apart_m, fraction = fit(given_b44)
    measured = apart_m if np.isfinite(apart_m) else None
    if fraction <= AGREEMENT:
        return [], measured
    received = f"{_centimetres(apart_m)} apart" if measured is not None else "frames that do not meet"
    promised = _Convention(False, reading.camera_axes, False, reading.zup_R_file_33)
    expected = f"neighbouring frames that agree to a few centimetres, with poses {promised.words()}"

    conventions = [(*fit(each.poses(file_b44)), each) for each, file_b44 in _conventions(reading, given_b44)]
    factors = [(*fit(given_b44, each), each) for each in DEPTH_FACTORS]
    best_m, best_fraction, best = min([*conventions, *factors], key=lambda each: each[1])
    if best_fraction <= min(AGREEMENT, CLEARLY_BETTER * fraction):
        if isinstance(best, _Convention):
            place, do = "poses", f"The poses are {best.words()}. {best.mend(promised)}"
            received += f"; taken as {best.words()} they are {_centimetres(best_m)} apart"
        else:
            place, do = "depth and poses", f"Store both in metres: their units differ by a factor of {best:.4g}."
            received += f"; with depth {best:.4g} times as large they are {_centimetres(best_m)} apart"
        return [Finding("error", place, expected, received, do)], measured
    if measured is None:
        do = "Walk slowly, so that each view shows much of the last one, and scan again."
        received = "frames without overlap, under any known convention of poses"
        return [Finding("error", "poses", "neighbouring frames that see the same surfaces", received, do)], measured
    severity = "error" if fraction > DISAGREEMENT else "warning"
    received += f" ({fraction:.0%} of the depth), and no other known convention of poses fits"
    do = "Look at K, the times and the poses of the export; if tracking was poor, scan again, slowly, in good light."
    return [Finding(severity, "poses", expected, received, do)], measured


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


# --- words ----------------------------------------------------------------------------------------


def _sequences(scan: Scan) -> dict[Kind, EncodedImages]:
    found = {kind: getattr(scan.recording, kind) for kind in WORDS}
    return {kind: sequence for kind, sequence in found.items() if sequence is not None}


def _error_of(rejected: ScanRejected) -> Finding:
    return Finding("error", rejected.place, rejected.expected, rejected.received, rejected.do)


def _centimetres(metres: float) -> str:
    return f"{100 * metres:.1f} cm"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
