"""Layouts and furniture with known numbers, whole and in parts: for what draws and writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from geomagic_dagster.cv.containers import EncodedImages
from geomagic_dagster.cv.types import Frames, Furniture, Layout, Mesh, Poses, Recording, Scan

RECTANGLE = np.array([[-1.0, -1.0], [3.0, -1.0], [3.0, 2.0], [-1.0, 2.0]])  # the room of test_package.py
L_SHAPE = np.array([[0.0, 0.0], [5.0, 0.0], [5.0, 2.0], [3.0, 2.0], [3.0, 4.5], [0.0, 4.5]])
OBLIQUE = np.array([[0.0, 0.0], [4.2, 0.0], [4.2, 3.0], [0.0, 4.0]])
U_SHAPE = np.array([[0, 0], [6, 0], [6, 4], [4.5, 4], [4.5, 1.5], [1.5, 1.5], [1.5, 4], [0, 4]], np.float64)
FLOOR_Z, CEILING_Z = -1.5, 1.0


def layout_of(
    corners_n2: np.ndarray,
    *,
    is_closed: bool = True,
    guessed: tuple[int, ...] = (),
    floor: float | None = FLOOR_Z,
    ceiling: float | None = CEILING_Z,
    openings: tuple[tuple[str, int, float, float, float, float], ...] = (),
) -> Layout:
    """Openings: kind, wall, start, width, sill, height."""
    corners_n2 = np.asarray(corners_n2, np.float64).reshape(-1, 2)
    walls = max(len(corners_n2) - (0 if is_closed else 1), 0)
    numbers = np.array([each[1:] for each in openings], np.float64).reshape(-1, 5)
    return Layout(
        corners_world_m_n2=corners_n2,
        is_closed=is_closed,
        wall_is_guessed_w=np.isin(np.arange(walls), guessed),
        wall_sigma_m_w=0.004 + 0.001 * np.arange(walls),
        wall_confidence_w=np.where(np.isin(np.arange(walls), guessed), 0.0, 0.9 - 0.02 * np.arange(walls)),
        corner_sigma_m_n=0.006 + 0.001 * np.arange(len(corners_n2)),
        length_sigma_m_w=0.007 + 0.002 * np.arange(walls),
        floor_z_world_m=floor,
        floor_sigma_m=0.003 if floor is not None else 0.0,
        ceiling_z_world_m=ceiling,
        ceiling_sigma_m=0.004 if ceiling is not None else 0.0,
        floor_levels_world_m_l=np.array([] if floor is None else [floor]),
        ceiling_planes_l4=np.array([[0.0, 0.0, ceiling, 10.0]]) if ceiling is not None else np.zeros((0, 4)),
        opening_kind_k=tuple(each[0] for each in openings),
        opening_wall_k=numbers[:, 0].astype(np.int64),
        opening_start_m_k=numbers[:, 1],
        opening_width_m_k=numbers[:, 2],
        opening_sill_m_k=numbers[:, 3],
        opening_height_m_k=numbers[:, 4],
        opening_sigma_m_k=np.full(len(openings), 0.02),
        opening_confidence_k=np.full(len(openings), 0.65),
        area_sigma_m2=0.04 if is_closed else 0.0,
        snapped="",
        warnings=(),
    )


def furniture_of(*pieces: tuple[str, tuple[float, float, float], tuple[float, float, float], float, int]) -> Furniture:
    """Each: kind, centre in the world, width, depth and height, yaw, index of what it stands on."""
    k = len(pieces)
    return Furniture(
        kind_k=tuple(each[0] for each in pieces),
        centre_world_m_k3=np.array([each[1] for each in pieces], np.float64).reshape(k, 3),
        size_m_k3=np.array([each[2] for each in pieces], np.float64).reshape(k, 3),
        yaw_world_rad_k=np.array([each[3] for each in pieces], np.float64),
        size_sigma_m_k3=np.tile([0.01, 0.02, 0.03], (k, 1)),
        centre_sigma_m_k3=np.tile([0.011, 0.012, 0.013], (k, 1)),
        confidence_k=np.linspace(0.9, 0.3, k),
        stands_on_k=np.array([each[4] for each in pieces], np.int64),
        warnings=(),
    )


NO_FURNITURE = furniture_of()
SOME_FURNITURE = furniture_of(
    ("table", (0.9, 0.6, -1.125), (1.6, 0.8, 0.75), 0.3, -1),
    ("chair", (2.3, 1.3, -1.05), (0.45, 0.5, 0.9), -0.7, -1),
    ("object", (1.0, 0.6, -0.6), (0.3, 0.2, 0.3), 0.3, 0),
    ("storage", (-0.85, 0.5, 0.3), (0.9, 0.3, 0.6), np.pi / 2, -2),
    ("chair", (0.1, -0.5, -1.05), (0.45, 0.5, 0.9), 2.5, -1),
)
OPENINGS = (("door", 0, 0.3, 0.9, 0.0, 2.0), ("window", 1, 0.8, 1.2, 0.9, 1.3), ("passage", 3, 1.0, 1.5, 0.0, 2.2))
WHOLE = layout_of(RECTANGLE, openings=OPENINGS)
PARTIAL = {
    "open": layout_of(L_SHAPE[:4], is_closed=False),
    "open, an end guessed": layout_of(RECTANGLE[:3], is_closed=False, guessed=(1,)),
    "one wall": layout_of(RECTANGLE[:2], is_closed=False, openings=OPENINGS[:1]),
    "a wall guessed": layout_of(RECTANGLE, guessed=(2,), openings=OPENINGS),
    "no floor": layout_of(RECTANGLE, floor=None, openings=OPENINGS),
    "no ceiling": layout_of(RECTANGLE, ceiling=None, openings=OPENINGS),
    "no walls": layout_of(np.zeros((0, 2)), is_closed=False),
    "only a floor": layout_of(np.zeros((0, 2)), is_closed=False, ceiling=None),
    "only a ceiling": layout_of(np.zeros((0, 2)), is_closed=False, floor=None),
    "walls alone": layout_of(RECTANGLE, floor=None, ceiling=None),
    "sloped ceiling": replace(WHOLE, ceiling_planes_l4=np.array([[0.0, 0.0, CEILING_Z, 6.0], [0.5, -0.2, 0.4, 6.0]])),
}


def scan_of(name: str = "Küche", frames: int = 3, colour: bool = True) -> Scan:
    recording = Recording(
        rgb=EncodedImages([b""] * frames) if colour else None,
        depth=None,
        depth_confidence=None,
        timestamp_s_b=np.arange(frames, dtype=np.float64),
        K_rgb_b33=None,
        K_depth_b33=None,
    )
    poses_b44 = np.tile(np.eye(4), (frames, 1, 1))
    return Scan(name, "made-up", recording, poses_b44, is_metric=True, down_scan_3=None)


def frames_of(scan: Scan) -> Frames:
    b = len(scan.recording)
    kept = np.arange(b - 1)
    return Frames(scan.recording.select(kept), kept, np.ones(b), np.ones(b), dropped=((b - 1, "blurred"),))


def poses_of(scan: Scan, floor_z_m: float | None = FLOOR_Z) -> Poses:
    """Of all frames but the last, the last of these cut."""
    b = len(scan.recording) - 1
    is_used_b = np.arange(b) < b - 1
    return Poses(
        np.tile(np.eye(4), (b, 1, 1)), np.eye(4), is_used_b, np.zeros(b), "device", floor_z_m, None, ((1, "jump"),)
    )


def box_mesh(low: tuple[float, ...] = (-1, -1, FLOOR_Z), high: tuple[float, ...] = (3, 2, CEILING_Z)) -> Mesh:
    """A closed box seen from inside, each of its triangles with its own corners."""
    import trimesh

    box = trimesh.creation.box(bounds=[low, high])
    triangles = box.faces[:, ::-1]
    return Mesh(
        box.vertices[triangles].reshape(-1, 3).astype(np.float32),
        np.arange(36, dtype=np.int32).reshape(12, 3),
        np.full((36, 3), 150, np.uint8),
        np.repeat(-box.face_normals, 3, axis=0).astype(np.float32),
        voxel_m=0.02,
    )


# --- any room, for property tests


@st.composite
def outlines(draw: st.DrawFn) -> np.ndarray:
    """Convex polygons (corners on an ellipse), rectangles and L-shapes, turned and moved."""
    kind = draw(st.sampled_from(["convex", "L"]))
    a, b = draw(st.floats(0.6, 15.0)), draw(st.floats(0.6, 15.0))
    if kind == "convex":
        n = draw(st.integers(3, 8))
        steps = np.array(draw(st.lists(st.floats(0.3, 1.0), min_size=n, max_size=n)))
        angle = 2 * np.pi * np.cumsum(steps) / steps.sum()
        corners = np.stack((a * np.cos(angle), b * np.sin(angle)), axis=1)
    else:
        c, d = draw(st.floats(0.2, 0.8)), draw(st.floats(0.2, 0.8))
        corners = np.array([[0, 0], [a, 0], [a, b * d], [a * c, b * d], [a * c, b], [0, b]])
    turn = draw(st.floats(0, 6.3))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return corners @ rotation.T + [draw(st.floats(-20, 20)), draw(st.floats(-20, 20))]


@st.composite
def rooms(draw: st.DrawFn) -> tuple[Layout, Furniture]:
    corners = draw(outlines())
    is_closed = draw(st.booleans())
    lengths = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    openings = []
    for wall in draw(st.lists(st.integers(0, len(corners) - 1 - (not is_closed)), max_size=3, unique=True)):
        start, width = draw(st.floats(0, 0.5)) * lengths[wall], draw(st.floats(0.1, 0.5)) * lengths[wall]
        openings.append(
            (
                draw(st.sampled_from(["door", "window", "passage"])),
                wall,
                start,
                width,
                draw(st.floats(0, 0.9)),
                draw(st.floats(0.3, 1.5)),
            )
        )
    layout = layout_of(
        corners,
        is_closed=is_closed,
        guessed=tuple(draw(st.lists(st.integers(0, 7), max_size=2))),
        floor=draw(st.sampled_from([None, -1.5, 0.0])),
        ceiling=draw(st.sampled_from([None, 1.0, 2.4])),
        openings=tuple(openings),
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    pieces = []
    for k in range(draw(st.integers(0, 8))):
        x, y = (float(low[i] + draw(st.floats(-0.1, 1.1)) * (high - low)[i]) for i in (0, 1))
        size = tuple(draw(st.floats(0.05, 2.5)) for _ in range(3))
        kind = draw(st.sampled_from(["table", "chair", "object", "television"]))
        pieces.append(
            (kind, (x, y, draw(st.floats(-1.5, 1.0))), size, draw(st.floats(-3.2, 3.2)), draw(st.integers(-2, k - 1)))
        )
    return layout, furniture_of(*pieces)
