"""The made-up room's furniture: what each kind is built of, and where it may stand.

Belongs here: the kinds, their parts and materials, and the rules by which a room is furnished.
Does not belong here: the room's shell (room.py) and how anything is drawn (ray_kernels.py).

A piece has its own frame: origin in the middle of its underside, x to its left-right, z up, and its front
towards +y (the back of a sofa, bed or wardrobe is at -y, against the wall). Metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.scans.made_up import plan

Pattern = Literal[
    "plaster", "stripes", "boards", "wood", "fabric", "tiles", "picture", "rug", "books", "plain", "emissive", "glass"
]
Rgb = tuple[float, float, float]
Xyz = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """A procedural texture."""

    pattern: Pattern
    rgb: Rgb
    """Reflectance as sRGB, 0 to 1."""
    rgb2: Rgb = (0.0, 0.0, 0.0)
    """Second colour of patterns that have one."""
    scale_m: float = 0.1
    contrast: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """A solid of a piece, in the piece's frame."""

    shape: Literal["box", "cylinder"]
    centre_3: Xyz
    size_3: Xyz
    """Along x, y, z; a cylinder is upright, with its diameter along x and y."""
    material: Material


@dataclass(frozen=True)
class Furniture:
    """A piece of furniture: its oriented box, and the solids inside it."""

    kind: str
    centre_world_m_3: Xyz
    size_m_3: Xyz
    yaw_rad: float
    """From the world's x axis to the piece's, about z; the front of the piece is its +y."""
    parent: int | None
    """Index of the piece that it stands on; None on the floor or on a wall."""
    parts: tuple[Part, ...]

    @property
    def corners_world_m_42(self) -> plan.F64:
        """The box seen from above."""
        return plan.rectangle_corners(np.array(self.centre_world_m_3[:2]), np.array(self.size_m_3[:2]), self.yaw_rad)

    @property
    def bottom_z_m(self) -> float:
        return self.centre_world_m_3[2] - 0.5 * self.size_m_3[2]

    @property
    def top_z_m(self) -> float:
        return self.centre_world_m_3[2] + 0.5 * self.size_m_3[2]

    def intersects(self, other: Furniture, margin_m: float = 0.0) -> bool:
        """Do the two oriented boxes share more than a face (or, with a margin, come nearer than that sideways)?"""
        if min(self.top_z_m, other.top_z_m) - max(self.bottom_z_m, other.bottom_z_m) <= 1e-9:
            return False
        return plan.overlap(self.corners_world_m_42, other.corners_world_m_42, margin_m + 1e-9)


@dataclass(frozen=True)
class Design:
    """A piece before it has a place."""

    kind: str
    size_m_3: Xyz
    parts: tuple[Part, ...]

    def at(self, place_2: plan.F64, bottom_z: float, yaw_rad: float, parent: int | None = None) -> Furniture:
        centre = (float(place_2[0]), float(place_2[1]), float(bottom_z) + 0.5 * self.size_m_3[2])
        return Furniture(self.kind, centre, self.size_m_3, float(yaw_rad), parent, self.parts)


# --- the kinds ---------------------------------------------------------------------------------------

Random = np.random.Generator


def _box(x: float, y: float, bottom: float, width: float, depth: float, height: float, material: Material) -> Part:
    return Part("box", (x, y, bottom + 0.5 * height), (width, depth, height), material)


def _cylinder(x: float, y: float, bottom: float, diameter: float, height: float, material: Material) -> Part:
    return Part("cylinder", (x, y, bottom + 0.5 * height), (diameter, diameter, height), material)


def _legs(width: float, depth: float, height: float, thick: float, material: Material) -> list[Part]:
    x, y = 0.5 * (width - thick) - 0.03, 0.5 * (depth - thick) - 0.03
    return [_box(a * x, b * y, 0.0, thick, thick, height, material) for a in (-1, 1) for b in (-1, 1)]


def _wood(rng: Random) -> Material:
    tones: list[tuple[Rgb, Rgb]] = [
        ((0.80, 0.64, 0.44), (0.66, 0.48, 0.30)),  # oak
        ((0.52, 0.34, 0.21), (0.36, 0.22, 0.13)),  # walnut
        ((0.90, 0.79, 0.60), (0.80, 0.66, 0.46)),  # birch
        ((0.88, 0.87, 0.84), (0.82, 0.81, 0.78)),  # painted white
    ]
    rgb, rgb2 = tones[rng.integers(len(tones))]
    return Material("wood", rgb, rgb2, 0.06, 0.22, int(rng.integers(1 << 20)))


def _cloth(rng: Random) -> Material:
    tones: list[tuple[Rgb, Rgb]] = [
        ((0.42, 0.48, 0.56), (0.30, 0.36, 0.46)),  # blue grey
        ((0.55, 0.56, 0.40), (0.43, 0.45, 0.30)),  # olive
        ((0.76, 0.70, 0.62), (0.64, 0.57, 0.49)),  # sand
        ((0.66, 0.32, 0.26), (0.52, 0.22, 0.18)),  # brick
        ((0.30, 0.45, 0.44), (0.22, 0.33, 0.34)),  # petrol
    ]
    rgb, rgb2 = tones[rng.integers(len(tones))]
    return Material("fabric", rgb, rgb2, float(rng.uniform(0.07, 0.12)), 0.35, int(rng.integers(1 << 20)))


_METAL = Material("plain", (0.35, 0.35, 0.37), contrast=0.05)
_SCREEN = Material("plain", (0.10, 0.10, 0.12), contrast=0.1, scale_m=0.3)
_LINEN = Material("fabric", (0.93, 0.92, 0.88), (0.85, 0.85, 0.84), 0.25, 0.12, 5)
_PAPER_SHADE = Material("emissive", (1.0, 0.90, 0.72), (1.0, 0.90, 0.72), 0.1, 0.05)


def table(rng: Random) -> Design:
    """A dining table on four legs."""
    width, depth, height = rng.uniform(1.2, 1.7), rng.uniform(0.75, 0.9), rng.uniform(0.72, 0.76)
    wood = _wood(rng)
    parts = [_box(0, 0, height - 0.035, width, depth, 0.035, wood), *_legs(width, depth, height - 0.035, 0.06, wood)]
    return Design("table", (width, depth, height), tuple(parts))


def round_table(rng: Random) -> Design:
    """A round top on a column."""
    diameter, height = rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.74)
    wood = _wood(rng)
    parts = (
        _cylinder(0, 0, height - 0.03, diameter, 0.03, wood),
        _cylinder(0, 0, 0.02, 0.09, height - 0.05, _METAL),
        _cylinder(0, 0, 0, 0.55 * diameter, 0.02, _METAL),
    )
    return Design("round table", (diameter, diameter, height), parts)


def desk(rng: Random) -> Design:
    """A desk with a drawer unit on one side and a panel on the other."""
    width, depth, height = rng.uniform(1.2, 1.5), rng.uniform(0.6, 0.72), 0.74
    wood = _wood(rng)
    fronts = replace(wood, seed=wood.seed + 1)
    drawers = [
        _box(0.5 * width - 0.23, 0.5 * depth - 0.05, 0.06 + 0.2 * i, 0.38, 0.02, 0.185, fronts) for i in range(3)
    ]
    parts = (
        _box(0, 0, height - 0.03, width, depth, 0.03, wood),
        _box(0.5 * width - 0.23, -0.02, 0.03, 0.40, depth - 0.08, height - 0.06, wood),
        *drawers,
        _box(-0.5 * width + 0.05, 0, 0, 0.03, depth - 0.06, height - 0.03, wood),
        _box(-0.18, -0.5 * depth + 0.04, 0.35, width - 0.56, 0.02, height - 0.38, wood),
    )
    return Design("desk", (width, depth, height), parts)


def chair(rng: Random) -> Design:
    """Four legs, seat and back."""
    width, depth, height, seat = 0.44, 0.48, rng.uniform(0.82, 0.95), 0.45
    wood, cloth = _wood(rng), _cloth(rng)
    back = -0.5 * depth
    parts = (
        *_legs(width, depth, seat - 0.05, 0.035, wood),
        _box(0, 0, seat - 0.05, width, depth, 0.05, cloth),
        _box(-0.5 * width + 0.03, back + 0.02, seat, 0.03, 0.03, height - seat, wood),
        _box(0.5 * width - 0.03, back + 0.02, seat, 0.03, 0.03, height - seat, wood),
        _box(0, back + 0.02, seat + 0.18, width - 0.09, 0.025, height - seat - 0.2, wood),
    )
    return Design("chair", (width, depth, height), parts)


def _seat(kind: str, width: float, rng: Random) -> Design:
    depth, height, seat, arm = rng.uniform(0.82, 0.92), rng.uniform(0.76, 0.86), 0.42, 0.16
    cloth = _cloth(rng)
    cushion = replace(cloth, seed=cloth.seed + 1)
    count = max(1, round((width - 2 * arm) / 0.65))
    each = (width - 2 * arm) / count
    cushions = []
    for i in range(count):
        x = -0.5 * width + arm + (i + 0.5) * each
        cushions.append(_box(x, 0.09, 0.27, each - 0.015, depth - 0.20, seat - 0.27, cushion))
        cushions.append(_box(x, -0.5 * depth + 0.27, seat, each - 0.03, 0.14, height - seat - 0.04, cushion))
    parts = (
        *_legs(width, depth, 0.08, 0.05, _wood(rng)),
        _box(0, 0, 0.08, width, depth, 0.19, cloth),
        _box(0, -0.5 * depth + 0.1, 0.27, width, 0.2, height - 0.27, cloth),
        _box(-0.5 * (width - arm), 0.1, 0.27, arm, depth - 0.2, 0.33, cloth),
        _box(0.5 * (width - arm), 0.1, 0.27, arm, depth - 0.2, 0.33, cloth),
        *cushions,
    )
    return Design(kind, (width, depth, height), parts)


def sofa(rng: Random) -> Design:
    """A sofa for two or three."""
    return _seat("sofa", float(rng.choice([1.62, 2.2])), rng)


def armchair(rng: Random) -> Design:
    """A seat for one with arms."""
    return _seat("armchair", 0.88, rng)


def bed(rng: Random) -> Design:
    """Frame, mattress, blanket, pillows, headboard."""
    width, length, height = float(rng.choice([0.96, 1.46, 1.66])), 2.06, rng.uniform(0.85, 1.0)
    wood, cloth = _wood(rng), _cloth(rng)
    pillows = [0.0] if width < 1.2 else [-0.24 * width, 0.24 * width]
    parts = (
        _box(0, 0, 0.1, width, length, 0.2, wood),
        *_legs(width, length, 0.1, 0.08, wood),
        _box(0, 0.02, 0.3, width - 0.06, length - 0.1, 0.18, _LINEN),
        _box(0, 0.29, 0.48, width - 0.04, length - 0.64, 0.05, cloth),
        _box(0, -0.5 * length + 0.025, 0.3, width, 0.05, height - 0.3, wood),
        *(_box(x, -0.5 * length + 0.32, 0.48, min(0.66, 0.44 * width + 0.2), 0.42, 0.12, _LINEN) for x in pillows),
    )
    return Design("bed", (width, length, height), parts)


def wardrobe(rng: Random) -> Design:
    """Tall, with doors and handles."""
    doors = int(rng.integers(2, 4))
    width, depth, height = 0.48 * doors, 0.58, rng.uniform(1.9, 2.1)
    wood = _wood(rng)
    front = 0.5 * depth
    fronts, handles = [], []
    for i in range(doors):
        x = -0.5 * width + (i + 0.5) * width / doors
        face = replace(wood, seed=wood.seed + i + 1)
        fronts.append(_box(x, front - 0.04, 0.06, width / doors - 0.012, 0.02, height - 0.1, face))
        handles.append(_cylinder(x + (0.19 if i % 2 == 0 else -0.19), front - 0.015, 0.95, 0.025, 0.18, _METAL))
    parts = (_box(0, -0.025, 0, width, depth - 0.05, height, wood), *fronts, *handles)
    return Design("wardrobe", (width, depth, height), parts)


def bookcase(rng: Random) -> Design:
    """Open shelves with books."""
    width, depth, height = rng.uniform(0.8, 1.2), 0.3, rng.uniform(1.6, 2.0)
    wood = _wood(rng)
    shelves = 5
    gap = (height - 0.1) / shelves
    parts = [
        _box(-0.5 * width + 0.0125, 0, 0, 0.025, depth, height, wood),
        _box(0.5 * width - 0.0125, 0, 0, 0.025, depth, height, wood),
        _box(0, -0.5 * depth + 0.01, 0, width - 0.05, 0.02, height, wood),
    ]
    for i in range(shelves + 1):
        bottom = 0.05 + i * gap
        parts.append(_box(0, 0.01, bottom, width - 0.05, depth - 0.02, 0.025, wood))
        if i < shelves:
            filled = rng.uniform(0.35, 0.95) * (width - 0.06)
            books = Material("books", (0.5, 0.4, 0.35), scale_m=0.034, contrast=0.15, seed=int(rng.integers(1 << 20)))
            side = rng.choice([-1.0, 1.0])
            tall = rng.uniform(0.6, 0.85) * gap
            parts.append(_box(side * 0.5 * (width - 0.06 - filled), -0.02, bottom + 0.025, filled, 0.2, tall, books))
    return Design("bookcase", (width, depth, height), tuple(parts))


def storage(rng: Random, width: float | None = None) -> Design:
    """A low cupboard; things stand on it."""
    width = float(rng.uniform(1.2, 1.7)) if width is None else width
    depth, height = (0.42, rng.uniform(0.48, 0.75)) if width > 0.7 else (0.4, 0.5)
    wood = _wood(rng)
    doors = max(1, round(width / 0.5))
    fronts = [
        _box(
            -0.5 * width + (i + 0.5) * width / doors, 0.5 * depth - 0.01, 0.1,
            width / doors - 0.015, 0.02, height - 0.14, replace(wood, seed=wood.seed + i + 1),
        )
        for i in range(doors)
    ]  # fmt: skip
    parts = (
        *_legs(width, depth - 0.04, 0.08, 0.05, _METAL),
        _box(0, -0.01, 0.08, width, depth - 0.02, height - 0.08, wood),
        *fronts,
    )
    return Design("storage", (width, depth, height), parts)


def television(rng: Random) -> Design:
    """A screen on a foot."""
    width = float(rng.uniform(0.9, 1.2))
    height = 0.5625 * width + 0.08
    parts = (
        _box(0, 0, 0, 0.4, 0.2, 0.015, _METAL),
        _box(0, -0.02, 0.015, 0.06, 0.03, 0.1, _METAL),
        _box(0, 0, 0.07, width, 0.05, height - 0.07, _METAL),
        _box(0, 0.0275, 0.08, width - 0.02, 0.005, height - 0.09, _SCREEN),
    )
    return Design("television", (width, 0.2, height), parts)


def wall_shelf(rng: Random) -> Design:
    """A board on the wall with books."""
    width, depth = float(rng.uniform(0.7, 1.1)), 0.22
    books = Material("books", (0.5, 0.4, 0.35), scale_m=0.032, contrast=0.15, seed=int(rng.integers(1 << 20)))
    filled = rng.uniform(0.4, 0.75) * width
    parts = (
        _box(0, 0, 0, width, depth, 0.03, _wood(rng)),
        _box(-0.5 * (width - filled) + 0.02, -0.01, 0.03, filled, 0.17, 0.22, books),
        _cylinder(0.5 * width - 0.1, 0, 0.03, 0.1, 0.15, Material("plain", (0.75, 0.42, 0.30), contrast=0.2)),
    )
    return Design("shelf", (width, depth, 0.25), parts)


def floor_lamp(rng: Random) -> Design:
    """Foot, pole and shade; it glows but gives no light to speak of (the light is the ceiling lamp and the sun)."""
    height, shade = float(rng.uniform(1.45, 1.65)), float(rng.uniform(0.32, 0.42))
    parts = (
        _cylinder(0, 0, 0, 0.28, 0.025, _METAL),
        _cylinder(0, 0, 0.025, 0.03, height - 0.3, _METAL),
        _cylinder(0, 0, height - 0.28, shade, 0.28, _PAPER_SHADE),
    )
    return Design("floor lamp", (shade, shade, height), parts)


def vase(rng: Random) -> Design:
    """A vase: two cylinders."""
    wide, height = float(rng.uniform(0.12, 0.18)), float(rng.uniform(0.22, 0.32))
    red, green, blue = rng.uniform(0.3, 0.85, 3)
    glaze = Material("plaster", (float(red), float(green), float(blue)), scale_m=0.05, contrast=0.3)
    belly, neck = 0.65 * height, 0.35 * height
    parts = (_cylinder(0, 0, 0, wide, belly, glaze), _cylinder(0, 0, belly, 0.5 * wide, neck, glaze))
    return Design("vase", (wide, wide, height), parts)


def carton(rng: Random) -> Design:
    """A box of cardboard with a picture on it."""
    size = (float(rng.uniform(0.22, 0.36)), float(rng.uniform(0.18, 0.28)), float(rng.uniform(0.14, 0.26)))
    print_ = Material("picture", (0.75, 0.6, 0.45), scale_m=0.07, contrast=0.2, seed=int(rng.integers(1 << 20)))
    return Design("box", size, (_box(0, 0, 0, *size, print_),))


def screen(rng: Random) -> Design:
    """A computer screen on a foot."""
    shown = Material("picture", (0.2, 0.4, 0.7), scale_m=0.12, seed=int(rng.integers(99)))
    parts = (
        _cylinder(0, -0.02, 0, 0.16, 0.015, _METAL),
        _box(0, -0.05, 0.015, 0.05, 0.02, 0.25, _METAL),
        _box(0, -0.02, 0.1, 0.54, 0.035, 0.33, _METAL),
        _box(0, 0.0, 0.11, 0.52, 0.005, 0.31, shown),
    )
    return Design("screen", (0.54, 0.2, 0.43), parts)


# --- where it stands ---------------------------------------------------------------------------------

Maker = Callable[[Random], Design]

APART_M = 0.03
"""Furniture keeps this far from furniture and from walls."""
_LEAST_WALKABLE = 0.16
"""Of the floor's area, in one part, must stay free to walk on."""


class Furnisher:
    """Puts one piece after the other into a room; a piece that finds no place is left out."""

    def __init__(
        self, rng: Random, footprint_k2: NDArray[np.float64], keep_free: list[tuple[NDArray[np.float64], float]]
    ) -> None:
        """`keep_free`: (rectangle (4, 2), height): nothing that is taller may stand there."""
        self.rng = rng
        self.footprint_k2 = footprint_k2
        self.keep_free = keep_free
        self.pieces: list[Furniture] = []
        self.floor = plan.FreeFloor.of(footprint_k2)
        self.area_m2 = plan.area_m2(footprint_k2)

    def against_wall(self, make: Maker, beside: Furniture | None = None) -> Furniture | None:
        """A piece with its back to some wall; with `beside`, right or left of a piece that stands at a wall."""
        design = make(self.rng)
        width, depth, _ = design.size_m_3
        for _ in range(30):
            if beside is None:
                wall = int(self.rng.integers(len(self.footprint_k2)))
                start, end = self.footprint_k2[wall], self.footprint_k2[(wall + 1) % len(self.footprint_k2)]
                length = float(np.hypot(*(end - start)))
                free = length - width - 2 * APART_M
                if free <= 0:
                    continue
                along = (end - start) / length
                # often in a corner, as people put furniture
                share = self.rng.choice([0.0, 1.0, self.rng.uniform()], p=[0.25, 0.25, 0.5])
                centre = start + along * (APART_M + 0.5 * width + share * free)
                back = centre + APART_M * np.array([-along[1], along[0]])
            else:
                along = np.array([np.cos(beside.yaw_rad), np.sin(beside.yaw_rad)])
                inward = np.array([-along[1], along[0]])
                side = self.rng.choice([-1.0, 1.0]) * (0.5 * (beside.size_m_3[0] + width) + 2 * APART_M)
                back = np.array(beside.centre_world_m_3[:2]) + along * side - inward * 0.5 * beside.size_m_3[1]
            centre = back + 0.5 * depth * np.array([-along[1], along[0]])
            placed = self.stand(design.at(centre, 0.0, np.arctan2(along[1], along[0])))
            if placed is not None:
                return placed
        return None

    def anywhere(self, make: Maker, jitter_rad: float = 0.0) -> Furniture | None:
        """A piece in the middle of the room, square to some wall but for the jitter."""
        design = make(self.rng)
        low, high = self.footprint_k2.min(axis=0), self.footprint_k2.max(axis=0)
        for _ in range(40):
            wall = int(self.rng.integers(len(self.footprint_k2)))
            along = self.footprint_k2[(wall + 1) % len(self.footprint_k2)] - self.footprint_k2[wall]
            yaw = np.arctan2(along[1], along[0]) + self.rng.uniform(-jitter_rad, jitter_rad)
            placed = self.stand(design.at(self.rng.uniform(low, high), 0.0, yaw))
            if placed is not None:
                return placed
        return None

    def facing(
        self, make: Maker, host: Furniture, side: str, gap_m: float = 0.05, shift_m: float = 0.0
    ) -> Furniture | None:
        """A piece whose front looks at a side ("front", "back", "left", "right") of another."""
        design = make(self.rng)
        turn = {"front": 0.0, "left": 0.5 * np.pi, "back": np.pi, "right": -0.5 * np.pi}[side]
        reach = 0.5 * host.size_m_3[1 if side in ("front", "back") else 0]
        towards = host.yaw_rad + turn + 0.5 * np.pi  # direction from the host to the piece
        out, across = np.array([np.cos(towards), np.sin(towards)]), np.array([np.sin(towards), -np.cos(towards)])
        away_m = reach + gap_m + 0.5 * design.size_m_3[1]
        centre = np.array(host.centre_world_m_3[:2]) + away_m * out + shift_m * across
        yaw = towards + 0.5 * np.pi + self.rng.uniform(-0.06, 0.06)
        return self.stand(design.at(centre, 0.0, yaw))

    def on_wall(self, make: Maker, bottom_m: tuple[float, float]) -> Furniture | None:
        """A piece that hangs on a wall."""
        design = make(self.rng)
        for _ in range(30):
            wall = int(self.rng.integers(len(self.footprint_k2)))
            start, end = self.footprint_k2[wall], self.footprint_k2[(wall + 1) % len(self.footprint_k2)]
            length = float(np.hypot(*(end - start)))
            if length < design.size_m_3[0] + 0.2:
                continue
            along = (end - start) / length
            place = self.rng.uniform(0.5 * design.size_m_3[0] + 0.1, length - 0.5 * design.size_m_3[0] - 0.1)
            # 2 mm off the wall: a gap that nobody sees, and the boxes touch no wall
            centre = start + along * place + np.array([-along[1], along[0]]) * (0.5 * design.size_m_3[1] + 0.002)
            piece = design.at(centre, self.rng.uniform(*bottom_m), np.arctan2(along[1], along[0]))
            if self.stand(piece) is not None:
                return piece
        return None

    def on_top(self, make: Maker, host: Furniture, turn_rad: float = 0.0) -> Furniture | None:
        """A piece that stands on another, wholly on its top."""
        design = make(self.rng)
        for _ in range(10):
            spare = [0.5 * (host.size_m_3[i] - design.size_m_3[i]) - 0.03 for i in (0, 1)]
            if host.kind == "round table":
                spare = [0.4 * each for each in spare]
            if min(spare) < 0:
                return None
            x, y = (self.rng.uniform(-each, each) for each in spare)
            cos, sin = np.cos(host.yaw_rad), np.sin(host.yaw_rad)
            centre = np.array(host.centre_world_m_3[:2]) + np.array([cos * x - sin * y, sin * x + cos * y])
            yaw = host.yaw_rad + self.rng.uniform(-turn_rad, turn_rad)
            piece = design.at(centre, host.top_z_m, yaw, parent=self.pieces.index(host))
            is_on_it = plan.fits(piece.corners_world_m_42, host.corners_world_m_42)
            if is_on_it and not any(piece.intersects(other, APART_M) for other in self.pieces):
                self.pieces.append(piece)
                return piece
        return None

    def stand(self, piece: Furniture) -> Furniture | None:
        """Puts a piece where it is, if it fits there and a person can still walk through the room; else None."""
        corners = piece.corners_world_m_42
        if not plan.fits(corners, self.footprint_k2):
            return None
        if any(piece.top_z_m > height and plan.overlap(corners, area) for area, height in self.keep_free):
            return None
        if any(piece.intersects(other, APART_M) for other in self.pieces):
            return None
        floor = self.floor.without(np.array(piece.centre_world_m_3[:2]), np.array(piece.size_m_3[:2]), piece.yaw_rad)
        walkable, share = floor.largest_part()
        if share < 0.97 or walkable.sum() * plan.CELL_M**2 < _LEAST_WALKABLE * self.area_m2:
            return None
        self.floor = floor
        self.pieces.append(piece)
        return piece


def furnish(
    rng: Random, footprint_k2: NDArray[np.float64], keep_free: list[tuple[NDArray[np.float64], float]]
) -> tuple[Furniture, ...]:
    """Furniture for a room: a living room, a bedroom or a study, and then whatever still fits."""
    room = Furnisher(rng, footprint_k2, keep_free)
    [_living_room, _bedroom, _study][rng.integers(3)](room)
    _fill_up(room)
    return tuple(room.pieces)


def _living_room(room: Furnisher) -> None:
    seat = room.against_wall(sofa)
    if seat is not None:
        low = room.facing(round_table, seat, "front", gap_m=0.35)
        if low is not None:
            room.on_top(vase, low)
    _television_corner(room)
    _dining_place(room)
    room.anywhere(armchair, jitter_rad=0.5)
    room.against_wall(bookcase)


def _bedroom(room: Furnisher) -> None:
    place = room.against_wall(bed)
    if place is not None:
        for _ in range(2):
            stand = room.against_wall(lambda rng: storage(rng, 0.45), beside=place)
            if stand is not None:
                room.on_top(vase, stand)
    room.against_wall(wardrobe)
    _work_place(room)
    _television_corner(room)


def _study(room: Furnisher) -> None:
    _work_place(room)
    room.against_wall(bookcase)
    _dining_place(room)
    room.against_wall(sofa)
    _television_corner(room)


def _fill_up(room: Furnisher) -> None:
    room.on_wall(wall_shelf, (1.3, 1.6))
    room.against_wall(floor_lamp)
    kinds = {piece.kind for piece in room.pieces}
    if "round table" not in kinds:
        low = room.anywhere(round_table)
        if low is not None:
            room.on_top(carton, low, turn_rad=0.5)
    for kind, make in (("wardrobe", wardrobe), ("bookcase", bookcase), ("storage", storage), ("chair", chair)):
        if kind not in kinds:
            room.against_wall(make)
    room.on_wall(wall_shelf, (1.3, 1.6))


def _television_corner(room: Furnisher) -> None:
    stand = room.against_wall(storage)
    if stand is not None and room.on_top(television, stand) is None:
        room.on_top(carton, stand, turn_rad=0.3)


def _dining_place(room: Furnisher) -> None:
    place = room.anywhere(table) or room.against_wall(table)
    if place is None:
        return
    seats = (("front", -0.3), ("front", 0.3), ("back", -0.3), ("back", 0.3), ("left", 0.0), ("right", 0.0))
    for side, shift_m in seats:
        if room.rng.uniform() < 0.8:
            room.facing(chair, place, side, gap_m=0.05, shift_m=shift_m)
    room.on_top(vase, place)
    room.on_top(carton, place, turn_rad=0.6)


def _work_place(room: Furnisher) -> None:
    place = room.against_wall(desk)
    if place is not None:
        room.facing(chair, place, "front", gap_m=0.06, shift_m=-0.1)
        room.on_top(screen, place)
        room.on_top(carton, place, turn_rad=0.4)
