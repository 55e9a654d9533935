"""Layout and furniture of made-up rooms held to their truth: figures, and one picture of plans over truth.

    python -m bench.rooms --rooms 30 --first-seed 30 --sheet rooms.png

Errors of corners are told twice: literally, where the first frame's pose puts the room, and those of the room's
shape, for which the found outline is laid over the true one first (rigidly: nothing is scaled).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.boxes import Box, JudgedBoxes, found_boxes, judge_boxes, precision_and_recall
from geomagic_dagster.cv.containers import encode_png
from geomagic_dagster.cv.plan import area_m2
from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.cv.types import Frames, Furniture, Layout, Poses
from geomagic_dagster.guardrails.execution import run_stage
from geomagic_dagster.scans.made_up import PHONE, PHONE_DRIFTING, MadeUpScan, ScanOptions, Truth, make_room, scan_room
from geomagic_dagster.scans.made_up.plan import rectangle_corners

F64 = NDArray[np.float64]
JUDGED = ("layout", "furniture")
"""The stages whose time is told, as a share of all up to these."""


@dataclass(eq=False)
class Judged:
    """One layout beside its truth. Lists of (error, sigma) hold what is to be calibrated."""

    seed: int
    shape: str
    corners_m_n2: F64
    """In the true world, as it came."""
    truth_m_n2: F64
    has_all_walls: bool
    corner_error_m_n: F64 = field(default_factory=lambda: np.zeros(0))
    """Of the shape."""
    literal_error_m_n: F64 = field(default_factory=lambda: np.zeros(0))
    camera_error_m_b: F64 = field(default_factory=lambda: np.zeros(0))
    """Literal too, of the used frames."""
    area_error: float = float("nan")
    ceiling_error_m: float = float("nan")
    found: int = 0
    missed: int = 0
    invented: int = 0
    calibration: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    boxes: JudgedBoxes = field(default_factory=JudgedBoxes)
    box_corners_m_k42: list[F64] = field(default_factory=list)
    """Found boxes from above, in the true world, as they came."""
    true_box_corners_m_k42: list[F64] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage."""

    def share(self, stage: str) -> float:
        return self.seconds[stage] / sum(self.seconds.values())


def judge(made: MadeUpScan, layout: Layout, poses: Poses) -> Judged:
    """Errors of a layout against the room's truth."""
    truth, room = made.truth, made.truth.room
    true = room.footprint_world_m_n2
    corners = in_truth(layout.corners_world_m_n2, truth, poses)
    judged = Judged(room.seed, room.shape, corners, true, layout.is_closed and len(corners) == len(true))
    if layout.floor_z_world_m is not None and layout.ceiling_z_world_m is not None:
        judged.ceiling_error_m = layout.ceiling_z_world_m - layout.floor_z_world_m - room.ceiling_z_m + room.floor_z_m
        sigma = float(np.hypot(layout.floor_sigma_m, layout.ceiling_sigma_m))
        judged.calibration["ceiling height"] = [(judged.ceiling_error_m, sigma)]
    if not judged.has_all_walls:
        judged.missed = len(room.openings)
        return judged
    turn = min(range(len(true)), key=lambda k: float(np.linalg.norm(np.roll(corners, k, axis=0) - true, axis=1).sum()))
    corners = np.roll(corners, turn, axis=0)
    laid = laid_over(corners, true)
    judged.corners_m_n2 = corners
    judged.corner_error_m_n = np.linalg.norm(laid - true, axis=1)
    judged.literal_error_m_n = np.linalg.norm(corners - true, axis=1)
    judged.area_error = area_m2(corners) / area_m2(true) - 1
    true_next, laid_next = np.roll(true, -1, axis=0), np.roll(laid, -1, axis=0)
    length = np.linalg.norm(true_next - true, axis=1)
    along = (true_next - true) / length[:, None]
    inward = np.stack((-along[:, 1], along[:, 0]), axis=1)
    off = (0.5 * (laid + laid_next - true - true_next) * inward).sum(axis=1)
    stretch = np.linalg.norm(laid_next - laid, axis=1) - length
    for name, error, sigma in (
        ("corner", judged.corner_error_m_n, layout.corner_sigma_m_n),
        ("wall", off, layout.wall_sigma_m_w),
        ("length", stretch, layout.length_sigma_m_w),
    ):
        judged.calibration[name] = list(zip(error, np.roll(sigma, turn), strict=True))
    judged.calibration["area"] = [(judged.area_error * area_m2(true), layout.area_sigma_m2)]
    _judge_openings(judged, layout, room.openings, turn)
    return judged


def _judge_openings(judged: Judged, layout: Layout, openings: Any, turn: int) -> None:
    """An opening is found where one of its kind on its wall overlaps it by half (intersection over union)."""
    taken: set[int] = set()
    walls = len(judged.truth_m_n2)
    judged.calibration["opening"] = []
    for true in openings:
        for k, kind in enumerate(layout.opening_kind_k):
            if k in taken or kind != true.kind or (int(layout.opening_wall_k[k]) + turn) % walls != true.wall:
                continue
            low = np.array([layout.opening_start_m_k[k], layout.opening_sill_m_k[k]])
            size = np.array([layout.opening_width_m_k[k], layout.opening_height_m_k[k]])
            true_low, true_size = np.array([true.along_m, true.sill_m]), np.array([true.width_m, true.height_m])
            both = np.minimum(low + size, true_low + true_size) - np.maximum(low, true_low)
            shared = float(np.prod(np.maximum(both, 0.0)))
            if shared > 0.5 * (np.prod(size) + np.prod(true_size) - shared):
                taken.add(k)
                errors = (*(low - true_low), *(size - true_size))
                judged.calibration["opening"] += [(float(e), float(layout.opening_sigma_m_k[k])) for e in errors]
                break
    judged.found, judged.missed = len(taken), len(openings) - len(taken)
    judged.invented = len(layout.opening_kind_k) - len(taken)


def in_truth(corners_world_m_n2: F64, truth: Truth, poses: Poses) -> F64:
    flat = np.column_stack((corners_world_m_n2, np.zeros(len(corners_world_m_n2))))
    return truth.to_world(flat, poses.world_T_scan_44)[:, :2]


def camera_error_m(truth: Truth, frames: Frames, poses: Poses) -> F64:
    """How far each used frame's camera is from where it truly was, in the true world as the first frame has it."""
    found_m_b3 = truth.to_world(poses.world_T_cam_b44[:, :3, 3], poses.world_T_scan_44)
    error_m_b = np.linalg.norm(found_m_b3 - truth.world_T_cam_b44[frames.scan_frame_b, :3, 3], axis=1)
    return error_m_b[poses.is_used_b]


def laying_over(points_n2: F64, onto_n2: F64) -> tuple[F64, F64]:
    """(rotation (2, 2), shift (2,)) that turn and shift points to lie on others as well as can be (Kabsch 1976)."""
    middle, onto_middle = points_n2.mean(axis=0), onto_n2.mean(axis=0)
    u, _, vt = np.linalg.svd((points_n2 - middle).T @ (onto_n2 - onto_middle))
    turn = (u @ np.diag([1.0, np.linalg.det(u @ vt)]) @ vt).T
    return turn, onto_middle - turn @ middle


def laid_over(points_n2: F64, onto_n2: F64) -> F64:
    turn, shift = laying_over(points_n2, onto_n2)
    return points_n2 @ turn.T + shift


def run(seed: int, options: ScanOptions) -> Judged:
    """A made-up room through all stages but the package."""
    made = scan_room(make_room(seed), options)
    results: dict[str, Any] = {"scan": made.scan}
    seconds: dict[str, float] = {}
    for stage in find_stages():
        if stage.name != "package":
            inputs = {each: results[each] for each in stage.inputs}
            outcome = run_stage(stage, inputs, stage.params(), logging.getLogger("bench"))
            results[stage.name], seconds[stage.name] = outcome.result, outcome.seconds
    furniture: Furniture = results["furniture"]
    judged = judge(made, results["layout"], results["poses"])
    judged.seconds = seconds
    judged.camera_error_m_b = camera_error_m(made.truth, results["frames"], results["poses"])
    judged.boxes = judge_boxes(furniture, made.truth, results["poses"])
    judged.box_corners_m_k42 = [
        in_truth(_from_above(box), made.truth, results["poses"]) for box in found_boxes(furniture)
    ]
    judged.true_box_corners_m_k42 = [piece.corners_world_m_42 for piece in made.truth.room.furniture]
    return judged


def _from_above(box: Box) -> F64:
    centre, size, yaw = box
    return rectangle_corners(centre[:2], size[:2], yaw)


RED, LIGHT_RED, BLACK, BLUE = (220, 40, 40), (255, 222, 214), (0, 0, 0), (30, 80, 220)


def sheet(rooms: list[Judged], columns: int = 5, tile: int = 420) -> NDArray[np.uint8]:
    """Plans (black) over truth (red), boxes (blue) over the true ones (filled), with their errors.

    Where all walls were found, the whole plan with its boxes is laid over the true outline first, as for the figures.
    """
    import cv2

    def text(words: str, row: int) -> None:
        at = (8, 16 + 15 * row if row >= 0 else tile + 7 + 15 * row)
        cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)

    tiles = []
    for room in rooms:
        picture = np.full((tile, tile, 3), 255, np.uint8)
        true = room.truth_m_n2
        middle = 0.5 * (true.min(axis=0) + true.max(axis=0))
        scale = (tile - 100) / float(np.ptp(true, axis=0).max())
        turn, shift = np.eye(2), np.zeros(2)
        if room.has_all_walls:
            turn, shift = laying_over(room.corners_m_n2, true)

        def pixels(points_m_n2: F64) -> NDArray[np.int32]:
            x, y = ((points_m_n2 - middle) * scale * (1, -1) + tile / 2).T  # noqa: B023
            return np.rint(np.stack((x, y), axis=1) * 16).astype(np.int32)  # sixteenths of a pixel

        for corners in room.true_box_corners_m_k42:
            cv2.fillPoly(picture, [pixels(corners)], LIGHT_RED, cv2.LINE_AA, 4)
            cv2.polylines(picture, [pixels(corners)], True, RED, 1, cv2.LINE_AA, 4)
        cv2.polylines(picture, [pixels(true)], True, RED, 5, cv2.LINE_AA, 4)
        for corners in room.box_corners_m_k42:
            cv2.polylines(picture, [pixels(corners @ turn.T + shift)], True, BLUE, 2, cv2.LINE_AA, 4)
        found = room.corners_m_n2 @ turn.T + shift
        cv2.polylines(picture, [pixels(found)], room.has_all_walls, BLACK, 1, cv2.LINE_AA, 4)
        worst = f"{100 * room.corner_error_m_n.max():.1f} cm" if room.has_all_walls else "other walls"
        text(f"{room.seed} {room.shape}: corner {worst}, area {100 * room.area_error:+.2f} %", 0)
        text(f"ceiling {1000 * room.ceiling_error_m:+.0f} mm", 1)
        text(f"openings: {room.found} found, {room.missed} missed, {room.invented} invented", -2)
        right, missed, false = (getattr(room.boxes, name).total() for name in ("right", "missed", "false"))
        text(f"boxes: {right} right, {missed} missed, {false} false", -1)
        tiles.append(picture)
    while len(tiles) % columns:
        tiles.append(np.full((tile, tile, 3), 255, np.uint8))
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def tables(rooms: list[Judged]) -> list[Table]:
    """Figures; how honest the sigmas are; which kind of furniture was taken for which."""
    errors, literal, cameras = (
        np.concatenate([getattr(room, name) for room in rooms])
        for name in ("corner_error_m_n", "literal_error_m_n", "camera_error_m_b")
    )
    found, missed, invented = (sum(getattr(room, name) for room in rooms) for name in ("found", "missed", "invented"))
    precision, recall = precision_and_recall([room.boxes for room in rooms])
    shares = {name: max(room.share(name) for room in rooms) for name in JUDGED if name in rooms[0].seconds}
    figures = Table("figure", "value", "meant", title=f"{len(rooms)} made-up rooms")

    def spread_cm(errors_m: F64) -> str:
        return f"{100 * errors_m.mean():.2f} cm, {100 * errors_m.max():.2f} cm"

    for name, value, meant in (
        ("rooms with all walls and no other", f"{sum(room.has_all_walls for room in rooms)}", f"{len(rooms)}"),
        (
            "corners as they came, mean and worst",
            spread_cm(literal),
            "3, 8",
        ),
        ("corners of the shape, mean and worst", spread_cm(errors), ""),
        ("cameras as they came, mean and worst", spread_cm(cameras), ""),
        ("ceiling height, worst", f"{1000 * np.nanmax(np.abs([room.ceiling_error_m for room in rooms])):.1f} mm", "10"),
        ("area, worst", f"{100 * np.nanmax(np.abs([room.area_error for room in rooms])):.2f} %", "1"),
        (
            "openings, precision and recall",
            f"{found / max(1, found + invented):.2f}, {found / max(1, found + missed):.2f}",
            "0.70",
        ),
        ("boxes, precision and recall", f"{precision:.2f}, {recall:.2f}", "0.80"),
        *(
            (
                f"{name}: seconds, mean; share of all before the package, worst",
                f"{np.mean([room.seconds[name] for room in rooms]):.2f}; {100 * share:.0f} %",
                "",
            )
            for name, share in shares.items()
        ),
    ):
        figures.add_row(name, value, meant)
    sigmas = Table("errors", "of", "inside one sigma", "inside two", title="calibration: 68 % and 95 % are meant")
    ratios = {
        name: np.array([abs(e) / s for room in rooms for e, s in room.calibration.get(name, ())])
        for name in ("corner", "wall", "length", "area", "ceiling height", "opening")
    }
    box_ratios = np.abs(np.concatenate([room.boxes.errors_over_sigma_m6 for room in rooms]))
    ratios |= {"box, edges": box_ratios[:, :3].ravel(), "box, centre": box_ratios[:, 3:].ravel()}
    for name, ratio in ratios.items():
        if len(ratio):
            inside = (f"{100 * (ratio < sigma).mean():.0f} %" for sigma in (1, 2))
            sigmas.add_row(name, str(len(ratio)), *inside)
    right, gone, taken_for = (
        sum((getattr(room.boxes, name) for room in rooms), Counter()) for name in ("right", "missed", "taken_for")
    )
    kinds = Table("piece", "found", "of", "taken for", title="furniture by its true kind")
    for kind in sorted(right | gone):
        names = ", ".join(f"{name} {n}" for (true, name), n in sorted(taken_for.items()) if true == kind)
        kinds.add_row(kind, str(right[kind]), str(right[kind] + gone[kind]), names)
    return [figures, sigmas, kinds]


def report(seeds: range, options: ScanOptions, picture: Path) -> None:
    """Runs the rooms, prints the tables, writes the contact sheet."""
    rooms = []
    for seed in seeds:
        rooms.append(run(seed, options))
        print(f"made-up room {seed}: {sum(rooms[-1].seconds.values()):.1f} s", file=sys.stderr)
    for table in tables(rooms):
        Console().print(table)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(encode_png(sheet(rooms)))
    print(f"{picture}: plan (black) over truth (red), boxes (blue) over true boxes (filled)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rooms", description="Made-up rooms beside their truth")
    add_arguments(parser)
    report_chosen(parser.parse_args())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rooms", type=int, default=10, help="how many made-up rooms")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--steady", action="store_true", help="tracking that closes its loops, instead of 1 %% drift")
    parser.add_argument("--sheet", type=Path, default=Path("rooms.png"), help="the picture to write")


def report_chosen(chosen: argparse.Namespace) -> None:
    """`report` with what was said on the command line."""
    options = (PHONE if chosen.steady else PHONE_DRIFTING).but(frames=chosen.frames)
    report(range(chosen.first_seed, chosen.first_seed + chosen.rooms), options, chosen.sheet)


if __name__ == "__main__":
    main()
