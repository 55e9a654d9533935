"""The made-up room as data: shell, openings, light, textures, furniture; all from a seed.

Belongs here: what a room is, how a seed becomes one, and its translation into the ray caster's table.
Does not belong here: how furniture is built and placed (furniture.py), cameras (walk.py).

World frame: metres, z up, floor at `floor_z_m` (0), the middle of the footprint's bounding box at x = y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.scans.made_up import plan
from geomagic_dagster.scans.made_up.furniture import Furniture, Material, Part, Rgb, Xyz, furnish

if TYPE_CHECKING:
    from geomagic_dagster.scans.made_up.ray_kernels import Scene

Shape = Literal["rectangular", "l_shaped", "oblique"]

_FROM_CORNER_M = 0.25
"""An opening keeps this far from its wall's ends, so that its recess never reaches round a corner."""
_LEAF_DEPTH_M = 0.05
_PANE_DEPTH_M = 0.10
_RECESS_M = 0.15


@dataclass(frozen=True)
class Wall:
    """An upright wall from start to end; the room is to its left. It has no thickness."""

    start_world_m_2: tuple[float, float]
    end_world_m_2: tuple[float, float]
    material: Material

    @property
    def length_m(self) -> float:
        return float(np.hypot(*np.subtract(self.end_world_m_2, self.start_world_m_2)))

    @property
    def yaw_rad(self) -> float:
        """Direction from start to end."""
        return float(np.arctan2(*np.subtract(self.end_world_m_2, self.start_world_m_2)[::-1]))

    def place(self, along_m: float, inward_m: float) -> NDArray[np.float64]:
        """The point (2,) so far along the wall and so far into the room."""
        along = np.subtract(self.end_world_m_2, self.start_world_m_2) / self.length_m
        return np.array(self.start_world_m_2) + along_m * along + inward_m * np.array([-along[1], along[0]])


@dataclass(frozen=True)
class Opening:
    """A door or a window: a rectangular hole in a wall.

    The door is shut: its leaf stands 5 cm behind the wall's plane. The window's pane stands 10 cm behind it and
    gives no depth: truth and scan have 0 there; in colour it shows a sky and trees.
    """

    kind: Literal["door", "window"]
    wall: int
    along_m: float
    """From the wall's start to the opening's near edge."""
    width_m: float
    height_m: float
    sill_m: float
    """Height of its lower edge above the floor."""


@dataclass(frozen=True)
class Decal:
    """A flat thing on a wall (a picture, along and up from the wall's start) or on the floor (a rug, world x and y).

    It belongs to the shell: it has no thickness and stays when the furniture is taken away.
    """

    wall: int | None
    """None: on the floor."""
    centre_m_2: tuple[float, float]
    size_m_2: tuple[float, float]
    material: Material


@dataclass(frozen=True)
class Light:
    """A lamp beneath the ceiling (a point), the sun through the window, the sky in the window, and an even rest."""

    lamp_world_m_3: Xyz
    lamp_rgb: Rgb
    """Irradiance at 1 m, in the unit in which 1 makes white paper white."""
    towards_sun_world_3: Xyz
    """Length 1, from the room to the sun."""
    sun_rgb: Rgb
    sky_rgb: Rgb
    ambient_rgb: Rgb


@dataclass(frozen=True, eq=False)
class MadeUpRoom:
    """A room without a camera in it: everything that is true of it."""

    seed: int
    shape: Shape
    footprint_world_m_n2: NDArray[np.float64]
    """Corners, counter-clockwise; wall i goes from corner i to the next."""
    floor_z_m: float
    ceiling_z_m: float
    walls: tuple[Wall, ...]
    openings: tuple[Opening, ...]
    """The door, then the window; never on the same wall."""
    decals: tuple[Decal, ...]
    floor_material: Material
    ceiling_material: Material
    fixtures: tuple[Furniture, ...]
    """Parts of the shell that are solid: door leaf, frames, linings of the recesses, ceiling lamp."""
    furniture: tuple[Furniture, ...]
    light: Light

    @property
    def floor_area_m2(self) -> float:
        return plan.area_m2(self.footprint_world_m_n2)

    def without_furniture(self) -> MadeUpRoom:
        return replace(self, furniture=())

    def opening_corners_world_m_43(self, opening: Opening) -> NDArray[np.float64]:
        """Corners (4, 3) of an opening in its wall's plane, counter-clockwise seen from inside."""
        wall = self.walls[opening.wall]
        near, far = (wall.place(opening.along_m + shift, 0.0) for shift in (0.0, opening.width_m))
        low = self.floor_z_m + opening.sill_m
        high = low + opening.height_m
        # seen from inside, a wall's start is on the right
        return np.array([[*far, low], [*near, low], [*near, high], [*far, high]])


def make_room(seed: int, shape: Shape | None = None, furniture: bool = True) -> MadeUpRoom:
    """A room from a seed: the same seed gives the same room, with and without furniture.

    Args: shape: None: by the seed. Raises: ValueError for a shape that there is none of.
    """
    if shape not in (None, *get_args(Shape)):
        raise ValueError(f"make_room: expected a shape of {', '.join(get_args(Shape))} or None; got {shape!r}")
    rng = np.random.default_rng([seed, 1])
    by_seed: Shape = get_args(Shape)[rng.integers(3)]
    shape = shape or by_seed
    footprint = _footprint(rng, shape)
    ceiling_z = float(rng.uniform(2.4, 2.8))
    wall_material, accent_material = _wall_materials(rng)
    accent = int(rng.integers(len(footprint)))
    walls = tuple(
        Wall((float(a[0]), float(a[1])), (float(b[0]), float(b[1])), accent_material if i == accent else wall_material)
        for i, (a, b) in enumerate(zip(footprint, np.roll(footprint, -1, axis=0), strict=True))
    )
    door, window = _openings(rng, walls, ceiling_z)
    light = _light(rng, footprint, walls[window.wall], ceiling_z)
    fixtures = (
        _door_fixture(walls[door.wall], door),
        _window_fixture(walls[window.wall], window),
        _lamp_fixture(light, ceiling_z),
    )
    decals = (*_pictures(rng, walls, (door, window)), *_rug(rng, footprint))
    keep_free = [
        (_front_of(walls[door.wall], door, 1.0), 0.0),
        (_front_of(walls[window.wall], window, 0.4), window.sill_m),
    ]
    return MadeUpRoom(
        seed=seed, shape=shape, footprint_world_m_n2=footprint, floor_z_m=0.0, ceiling_z_m=ceiling_z, walls=walls,
        openings=(door, window), decals=decals, floor_material=_floor_material(rng),
        ceiling_material=Material("plaster", (0.90, 0.90, 0.88), scale_m=0.4, contrast=0.03),
        fixtures=fixtures, light=light,
        furniture=furnish(np.random.default_rng([seed, 2]), footprint, keep_free) if furniture else (),
    )  # fmt: skip


# --- the shell -----------------------------------------------------------------------------------------


def _footprint(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    if shape == "rectangular":
        w, d = rng.uniform(3.8, 5.6), rng.uniform(3.2, 4.5)
        corners = [(0, 0), (w, 0), (w, d), (0, d)]
    elif shape == "l_shaped":
        w, d = rng.uniform(4.8, 6.2), rng.uniform(4.4, 5.4)
        cut_w, cut_d = rng.uniform(0.35, 0.5) * w, rng.uniform(0.35, 0.5) * d
        corners = [(0, 0), (w, 0), (w, d - cut_d), (w - cut_w, d - cut_d), (w - cut_w, d), (0, d)]
    elif rng.uniform() < 0.5:  # one wall aslant
        w, d, slant = rng.uniform(4.0, 5.6), rng.uniform(3.4, 4.5), rng.uniform(0.5, 1.2)
        corners = [(0, 0), (w, 0), (w - slant, d), (0, d)]
    else:  # a corner cut off
        w, d, cut = rng.uniform(4.2, 5.6), rng.uniform(3.6, 4.6), rng.uniform(1.0, 1.6)
        corners = [(0, 0), (w, 0), (w, d - cut), (w - cut, d), (0, d)]
    footprint = np.array(corners, np.float64)
    for _ in range(rng.integers(4)):  # quarter turns
        footprint = np.stack((-footprint[:, 1], footprint[:, 0]), axis=1)
    return footprint - 0.5 * (footprint.min(axis=0) + footprint.max(axis=0))


def _openings(rng: np.random.Generator, walls: tuple[Wall, ...], ceiling_z: float) -> tuple[Opening, Opening]:
    wide_enough = [i for i, wall in enumerate(walls) if wall.length_m > 1.0 + 2 * _FROM_CORNER_M]
    door_wall = int(rng.choice(wide_enough))
    # the window in the longest wall that is left, for light
    window_wall = max((i for i in wide_enough if i != door_wall), key=lambda i: walls[i].length_m)

    def opening(kind: Literal["door", "window"], wall: int, width: float, height: float, sill: float) -> Opening:
        free = walls[wall].length_m - width - 2 * _FROM_CORNER_M
        share = rng.uniform(0.25, 0.75) if kind == "window" else rng.choice([0.0, 1.0, rng.uniform()])
        return Opening(kind, wall, float(_FROM_CORNER_M + share * free), width, height, sill)

    sill = float(rng.uniform(0.8, 0.95))
    room_width = walls[window_wall].length_m - 2 * _FROM_CORNER_M
    return (
        opening("door", door_wall, float(rng.uniform(0.82, 0.95)), float(rng.uniform(1.98, 2.08)), 0.0),
        opening("window", window_wall, float(min(rng.uniform(1.1, 1.8), room_width)),
                float(min(rng.uniform(1.1, 1.35), ceiling_z - 0.25 - sill)), sill),
    )  # fmt: skip


def _front_of(wall: Wall, opening: Opening, depth_m: float) -> NDArray[np.float64]:
    """The rectangle (4, 2) before an opening."""
    near, far = opening.along_m, opening.along_m + opening.width_m
    return np.stack([wall.place(near, 0), wall.place(far, 0), wall.place(far, depth_m), wall.place(near, depth_m)])


def _recess(opening: Opening, lining: Material) -> list[Part]:
    """The four boards that line an opening behind its wall, in the fixture's frame."""
    width, depth, side = opening.width_m, _RECESS_M, 0.05
    height, out = opening.height_m, -0.5 * depth
    x, below, above = 0.5 * (width + side), -0.5 * side, height + 0.5 * side
    return [
        *(Part("box", (a * x, out, 0.5 * height), (side, depth, height), lining) for a in (-1, 1)),
        *(Part("box", (0.0, out, z), (width + 2 * side, depth, side), lining) for z in (below, above)),
    ]


def _fixture(kind: str, wall: Wall, opening: Opening, parts: list[Part]) -> Furniture:
    """Solids at an opening. Their frame: origin at the middle of its lower edge, x along the wall, y into the room."""
    # the box of a fixture is of no interest; its size only fixes where the parts' frame is
    x, y = wall.place(opening.along_m + 0.5 * opening.width_m, 0.0)
    size = (opening.width_m, 2 * _RECESS_M, opening.height_m)
    centre = (float(x), float(y), opening.sill_m + 0.5 * opening.height_m)
    return Furniture(kind, centre, size, wall.yaw_rad, None, tuple(parts))


def _door_fixture(wall: Wall, door: Opening) -> Furniture:
    paint = Material("plain", (0.85, 0.83, 0.78), contrast=0.05, scale_m=0.2)
    leaf = Material("wood", (0.72, 0.56, 0.38), (0.60, 0.44, 0.28), 0.08, 0.2, 11)
    metal = Material("plain", (0.6, 0.6, 0.62), contrast=0.05)
    width, height, thick = door.width_m, door.height_m, _RECESS_M - _LEAF_DEPTH_M
    parts = [
        *_recess(door, paint),
        Part("box", (0.0, -_LEAF_DEPTH_M - 0.5 * thick, 0.5 * height), (width, thick, height), leaf),
        Part("box", (0.5 * width - 0.11, -_LEAF_DEPTH_M + 0.02, 1.02), (0.13, 0.02, 0.025), metal),
        Part("box", (0.5 * width - 0.06, -_LEAF_DEPTH_M + 0.01, 1.02), (0.02, 0.02, 0.025), metal),
    ]
    for bottom, top in ((0.15, 0.85), (1.15, height - 0.15)):  # panels
        centre = (0.0, -_LEAF_DEPTH_M + 0.005, 0.5 * (bottom + top))
        parts.append(Part("box", centre, (width - 0.35, 0.01, top - bottom), replace(leaf, seed=12)))
    return _fixture("door", wall, door, parts)


def _window_fixture(wall: Wall, window: Opening) -> Furniture:
    paint = Material("plain", (0.92, 0.92, 0.90), contrast=0.03, scale_m=0.2)
    width, height, bar, y = window.width_m, window.height_m, 0.05, -_PANE_DEPTH_M + 0.015
    parts = _recess(window, paint)
    parts += [Part("box", (x, y, 0.5 * height), (bar, 0.03, height), paint)
              for x in (-0.5 * (width - bar), 0.0, 0.5 * (width - bar))]  # fmt: skip
    parts += [Part("box", (0.0, y, z), (width, 0.03, bar), paint) for z in (0.5 * bar, height - 0.5 * bar)]
    pane_depth = _RECESS_M - _PANE_DEPTH_M
    parts.append(
        Part("box", (0.0, -_PANE_DEPTH_M - 0.5 * pane_depth, 0.5 * height), (width, pane_depth, height),
             Material("glass", (0.8, 0.9, 1.0)))
    )  # fmt: skip
    return _fixture("window", wall, window, parts)


def _lamp_fixture(light: Light, ceiling_z: float) -> Furniture:
    x, y, z = light.lamp_world_m_3
    shade = Material("emissive", (1.0, 0.95, 0.85), (1.0, 0.95, 0.85))
    height = ceiling_z - z - 0.02  # the light is a point 2 cm beneath the shade
    part = Part("cylinder", (0.0, 0.0, 0.5 * height), (0.36, 0.36, height), shade)
    return Furniture("lamp", (x, y, z + 0.02 + 0.5 * height), (0.36, 0.36, height), 0.0, None, (part,))


def _light(rng: np.random.Generator, footprint: NDArray[np.float64], window_wall: Wall, ceiling_z: float) -> Light:
    floor = plan.FreeFloor.of(footprint)  # the lamp hangs where the walls are farthest
    x, y = floor.centres_yx2()[np.unravel_index(np.argmax(floor.clearance_m_yx), floor.clearance_m_yx.shape)]
    azimuth = window_wall.yaw_rad - 0.5 * np.pi + rng.uniform(-0.7, 0.7)
    height = np.radians(rng.uniform(25, 45))
    sun = (np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height))
    warm = float(rng.uniform(0.0, 1.0))
    return Light(
        lamp_world_m_3=(float(x), float(y), ceiling_z - 0.14),
        lamp_rgb=(1.15, 1.05 - 0.12 * warm, 0.92 - 0.30 * warm),
        towards_sun_world_3=(float(sun[0]), float(sun[1]), float(sun[2])),
        sun_rgb=(2.2, 2.0, 1.65),
        sky_rgb=(1.15, 1.35, 1.65),
        ambient_rgb=(0.27, 0.27, 0.28),
    )


def _wall_materials(rng: np.random.Generator) -> tuple[Material, Material]:
    """(plain plaster of most walls, the one accent wall)."""
    tint = rng.uniform(0.78, 0.88) + rng.uniform(-0.03, 0.03, 3)
    tinted = (float(tint[0]), float(tint[1]), float(tint[2]))
    plaster = Material("plaster", tinted, scale_m=0.35, contrast=0.08, seed=21)
    base = rng.uniform(0.55, 0.75) + rng.uniform(-0.12, 0.12, 3)
    rgb = (float(base[0]), float(base[1]), float(base[2]))
    lighter = (rgb[0] + 0.12, rgb[1] + 0.12, rgb[2] + 0.12)
    stripes = Material("stripes", rgb, lighter, float(rng.uniform(0.16, 0.30)), 0.06, 22)
    paint = Material("plaster", rgb, scale_m=0.3, contrast=0.07, seed=23)
    return plaster, stripes if rng.uniform() < 0.7 else paint


def _floor_material(rng: np.random.Generator) -> Material:
    seed = int(rng.integers(1 << 20))
    return [
        Material("boards", (0.72, 0.55, 0.38), (0.56, 0.40, 0.26), 0.14, 0.25, seed),
        Material("boards", (0.50, 0.36, 0.25), (0.36, 0.25, 0.17), 0.12, 0.25, seed),
        Material("tiles", (0.68, 0.66, 0.62), (0.45, 0.44, 0.42), 0.33, 0.18, seed),
        Material("fabric", (0.52, 0.50, 0.48), (0.42, 0.40, 0.40), 0.5, 0.4, seed),
    ][rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])]


def _pictures(rng: np.random.Generator, walls: tuple[Wall, ...], openings: tuple[Opening, ...]) -> list[Decal]:
    pictures: list[Decal] = []
    for i, wall in enumerate(walls):
        taken = [(each.along_m - 0.1, each.along_m + each.width_m + 0.1) for each in openings if each.wall == i]
        for _ in range(1 + int(wall.length_m > 3.0)):
            width, height = float(rng.uniform(0.35, 0.9)), float(rng.uniform(0.35, 0.7))
            if wall.length_m < width + 0.6:
                continue
            along = float(rng.uniform(0.3 + 0.5 * width, wall.length_m - 0.3 - 0.5 * width))
            span = (along - 0.5 * width - 0.1, along + 0.5 * width + 0.1)
            if any(span[0] < high and low < span[1] for low, high in taken):
                continue
            taken.append(span)
            rgb = rng.uniform(0.3, 0.8, 3)
            material = Material(
                "picture", (float(rgb[0]), float(rgb[1]), float(rgb[2])), scale_m=float(rng.uniform(0.07, 0.16)),
                contrast=0.3, seed=int(rng.integers(1 << 20)),
            )  # fmt: skip
            pictures.append(Decal(i, (along, float(rng.uniform(1.45, 1.65))), (width, height), material))
    return pictures


def _rug(rng: np.random.Generator, footprint: NDArray[np.float64]) -> list[Decal]:
    size = (float(rng.uniform(1.3, 2.0)), float(rng.uniform(1.0, 1.5)))
    rgb, rgb2 = rng.uniform(0.25, 0.75, 3), rng.uniform(0.4, 0.9, 3)
    material = Material(
        "rug", (float(rgb[0]), float(rgb[1]), float(rgb[2])), (float(rgb2[0]), float(rgb2[1]), float(rgb2[2])),
        0.16, 0.25, int(rng.integers(1 << 20)),
    )  # fmt: skip
    for _ in range(20):
        centre = rng.uniform(0.6 * footprint.min(axis=0), 0.6 * footprint.max(axis=0))
        if plan.fits(plan.rectangle_corners(centre, np.array(size), 0.0), footprint):
            return [Decal(None, (float(centre[0]), float(centre[1])), size, material)]
    return []


# --- the ray caster's table ------------------------------------------------------------------------------


def scene_of(room: MadeUpRoom) -> Scene:
    """The room as the ray caster's arrays; solids in the order fixtures, furniture, each with its parts."""
    from geomagic_dagster.scans.made_up import ray_kernels

    materials: list[Material] = []

    def number_of(material: Material) -> int:
        if material not in materials:
            materials.append(material)
        return materials.index(material)

    groups = (*room.fixtures, *room.furniture)
    centre, half, turn, shape, material, start, low, high = [], [], [], [], [], [0], [], []
    for piece in groups:
        cos, sin = np.cos(piece.yaw_rad), np.sin(piece.yaw_rad)
        rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        origin = np.array([*piece.centre_world_m_3[:2], piece.bottom_z_m])
        centres = origin + np.array([part.centre_3 for part in piece.parts]) @ rotation.T
        halves = 0.5 * np.array([part.size_3 for part in piece.parts])
        reach = halves @ np.abs(rotation).T  # half size of the upright, unturned box around each part
        centre.append(centres)
        half.append(halves)
        turn += [(cos, sin)] * len(piece.parts)
        shape += [ray_kernels.CYLINDER if part.shape == "cylinder" else ray_kernels.BOX for part in piece.parts]
        material += [number_of(part.material) for part in piece.parts]
        start.append(start[-1] + len(piece.parts))
        low.append((centres - reach).min(axis=0) - 1e-6)
        high.append((centres + reach).max(axis=0) + 1e-6)

    corners = room.footprint_world_m_n2
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    holes = np.zeros((len(corners), 4))
    window_wall = -1
    for each in room.openings:
        sill = room.floor_z_m + each.sill_m
        holes[each.wall] = (each.along_m, each.along_m + each.width_m, sill, sill + each.height_m)
        window_wall = each.wall if each.kind == "window" else window_wall
    wall_materials = [number_of(wall.material) for wall in room.walls]
    floor_material, ceiling_material = number_of(room.floor_material), number_of(room.ceiling_material)
    decal_materials = [number_of(decal.material) for decal in room.decals]
    light = room.light
    return ray_kernels.Scene(
        floor_z=room.floor_z_m,
        ceiling_z=room.ceiling_z_m,
        corner_k2=np.ascontiguousarray(corners),
        along_k2=edges / lengths[:, None],
        length_k=lengths,
        hole_k4=holes,
        wall_material_k=np.array(wall_materials, np.int64),
        floor_material=floor_material,
        ceiling_material=ceiling_material,
        solid_shape_p=np.array(shape, np.int64),
        solid_centre_p3=np.concatenate(centre),
        solid_half_p3=np.concatenate(half),
        solid_cos_sin_p2=np.array(turn),
        solid_material_p=np.array(material, np.int64),
        group_start=np.array(start, np.int64),
        group_low_g3=np.array(low),
        group_high_g3=np.array(high),
        decal_surface_q=np.array(
            [ray_kernels.FLOOR_DECAL if decal.wall is None else decal.wall for decal in room.decals], np.int64
        ),
        decal_centre_q2=np.array([decal.centre_m_2 for decal in room.decals]).reshape(-1, 2),
        decal_half_q2=0.5 * np.array([decal.size_m_2 for decal in room.decals]).reshape(-1, 2),
        decal_material_q=np.array(decal_materials, np.int64),
        pattern_m=np.array([getattr(ray_kernels, each.pattern.upper()) for each in materials], np.int64),
        rgb_m3=np.array([each.rgb for each in materials]) ** 2.2,
        rgb2_m3=np.array([each.rgb2 for each in materials]) ** 2.2,
        scale_m=np.array([each.scale_m for each in materials]),
        contrast_m=np.array([each.contrast for each in materials]),
        seed_m=np.array([each.seed for each in materials], np.int64),
        lamp_3=np.array(light.lamp_world_m_3),
        lamp_rgb_3=np.array(light.lamp_rgb),
        towards_sun_3=np.array(light.towards_sun_world_3),
        sun_rgb_3=np.array(light.sun_rgb),
        sky_rgb_3=np.array(light.sky_rgb),
        ambient_rgb_3=np.array(light.ambient_rgb),
        window_wall=window_wall,
    )
