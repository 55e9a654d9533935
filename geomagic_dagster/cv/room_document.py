"""Layout and furniture as the document of room.json.

Belongs here: the axes of room.glb, names and identifiers of what is in a room, from arrays to the models of
room_model.py, and saying what is missing. Does not belong here: how any of it is drawn or stored.

The axes are those of glTF (right-handed, +Y up, metres): a point (x, y, z) of the world (z up) becomes (x, z, -y).
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from geomagic_dagster.cv import room_model as model
from geomagic_dagster.cv.stage import StageError
from geomagic_dagster.cv.types import Furniture, Layout, Mesh, Scan

F64 = NDArray[np.float64]
Identify = Callable[[str], str]

ROOM_T_WORLD_33 = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""World (z up) to the axes of glTF (y up): a quarter turn about x, so no mirror image."""
UP = np.array([0.0, 0.0, 1.0])
HIGH, MEDIUM = 0.7, 0.4
"""From here a confidence of 0 to 1 is RoomPlan's "high", from there "medium"."""
LEVEL_SHARE = 0.9
"""Of the ceiling has to be level and of one height, or area times height is not the volume."""
ON_FLOOR, ON_WALL = -1, -2  # of Furniture.stands_on_k
NOTHING = model.Nothing()


def world_to_room(points_world_n3: NDArray[Any]) -> NDArray[Any]:
    """Points or directions (n, 3), from z up to glTF's y up: (x, y, z) to (x, z, -y), exact in any type."""
    return np.stack((points_world_n3[:, 0], points_world_n3[:, 2], -points_world_n3[:, 1]), axis=1)


def room_document(scan: Scan, mesh: Mesh, layout: Layout, furniture: Furniture) -> model.RoomDocument:
    """The document of any layout, also of an open outline, of no walls, no floor, no ceiling, no furniture.

    `warnings` say what is missing, after the sentences of layout and furniture. The mesh gives the heights from and
    to which walls go where floor or ceiling was not seen. The same scan gives the same identifiers.

    Raises: StageError where a wall has no length or a number is none: faults of layout or furniture.
    """
    for wall, length_m in enumerate(np.linalg.norm(np.subtract(*wall_ends_m(layout)), axis=1)):
        if not length_m > 1e-6:  # also where it is not a number
            raise StageError(
                f"room.json: expected walls with a length; got {length_m} m for wall {wall}. "
                "This is a fault of the layout stage."
            )
    try:
        return _document(mesh, layout, furniture, _identifiers_of(scan))
    except ValidationError as error:
        first = error.errors()[0]
        raise StageError(
            f"room.json, {'.'.join(map(str, first['loc']))} of {error.title}: expected what its schema says; got "
            f"{first['input']!r} ({first['msg']}). This is a fault of the layout or the furniture stage."
        ) from error


def _document(mesh: Mesh, layout: Layout, furniture: Furniture, identify: Identify) -> model.RoomDocument:
    low_m, high_m = _wall_heights(mesh, layout)
    walls = list(_walls(layout, low_m, high_m, identify))
    doors, windows, passages = _openings(layout, walls, low_m, identify)
    objects, others = _boxes(furniture, identify)
    measured = _measured(layout)
    return model.RoomDocument(
        schema_version=1,
        units="metres",
        axes="right-handed, +Y up, those of room.glb; the origin is the device's own",
        version=2,
        identifier=identify("room"),
        story=0,
        reference_origin_transform=tuple(np.eye(4).ravel().tolist()),
        walls=walls,
        doors=doors,
        windows=windows,
        openings=passages,
        floors=_floors(layout, identify),
        objects=objects,
        sections=[],
        ceilings=_ceilings(layout, identify),
        other_objects=others,
        measured=measured,
        warnings=_warnings(layout, furniture, measured),
    )


def rounded(value: Any, digits: int = 6) -> Any:
    """For files that people read: micrometres are enough, and read better than the tail of a binary fraction."""
    return (np.round(np.asarray(value, np.float64), digits) + 0.0).tolist()  # + 0.0: no minus zero


def wall_ends_m(layout: Layout) -> tuple[F64, F64]:
    """(w, 2) each: where walls begin and end in the plan."""
    starts = layout.corners_world_m_n2[: len(layout.wall_is_guessed_w)]
    return starts, np.roll(layout.corners_world_m_n2, -1, axis=0)[: len(starts)]


# --- what is alike for all --------------------------------------------------------------------------


def _identifiers_of(scan: Scan) -> Identify:
    """From the name of an element to its identifier: of this scan (its name, times and poses), not of a release."""
    digest = hashlib.sha256(scan.name.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(np.ascontiguousarray(scan.recording.timestamp_s_b, "<f8").tobytes())
    if scan.scan_T_cam_b44 is not None:
        digest.update(np.ascontiguousarray(scan.scan_T_cam_b44, "<f8").tobytes())
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, f"{model.SCHEMA_ID}:{digest.hexdigest()}")
    return lambda element: str(uuid.uuid5(namespace, element)).upper()  # as Swift writes them


def _transform(world_R_own_33: F64, centre_world_3: F64) -> tuple[float, ...]:
    """Sixteen numbers by columns, from an element's own axes to those of room.glb."""
    room_T_own_44 = np.eye(4)
    room_T_own_44[:3, :3] = ROOM_T_WORLD_33 @ world_R_own_33
    room_T_own_44[:3, 3] = ROOM_T_WORLD_33 @ centre_world_3
    return tuple(rounded(room_T_own_44.T.ravel(), 9))


def _confidence(value: float) -> dict[str, Any]:
    level = "high" if value >= HIGH else "medium" if value >= MEDIUM else "low"
    return {"confidence": {level: NOTHING}, "confidence_value": rounded(np.clip(value, 0.0, 1.0), 4)}


def _surface(
    name: str, category: dict[str, Any], confidence: float, size_2: Any, transform: tuple[float, ...],
    identify: Identify, parent: str | None = None, polygon: F64 | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "identifier": identify(name),
        "name": name,
        "category": category,
        **_confidence(confidence),
        "dimensions": (*rounded(size_2), 0.0),
        "transform": transform,
        "parent_identifier": parent,
        "story": 0,
        "polygon_corners": [] if polygon is None else [(*xy, 0.0) for xy in rounded(polygon)],
        "completed_edges": [],
        "curve": None,
    }


# --- the shell --------------------------------------------------------------------------------------


def _wall_heights(mesh: Mesh, layout: Layout) -> tuple[float, float]:
    """Foot and top of the walls: floor and ceiling, else the lowest and highest surface that was seen."""
    seen_low, seen_high = np.quantile(mesh.vertices_world_m_v3[:, 2].astype(np.float64), (0.005, 0.995))
    low_m = layout.floor_z_world_m if layout.floor_z_world_m is not None else min(
        float(seen_low), layout.ceiling_z_world_m if layout.ceiling_z_world_m is not None else np.inf
    )  # fmt: skip
    high_m = layout.ceiling_z_world_m if layout.ceiling_z_world_m is not None else max(float(seen_high), low_m)
    return low_m, high_m


def _facing_the_room(start_2: F64, end_2: F64) -> F64:
    """world_R_own_33 of a wall from start to end: x to the right as seen from the room, y up, z into the room."""
    along = (end_2 - start_2) / np.linalg.norm(end_2 - start_2)
    return np.stack(([-along[0], -along[1], 0.0], UP, [-along[1], along[0], 0.0]), axis=1)


def _walls(layout: Layout, low_m: float, high_m: float, identify: Identify) -> Iterator[model.Wall]:
    is_measured = layout.floor_z_world_m is not None and layout.ceiling_z_world_m is not None
    for i, (start, end) in enumerate(zip(*wall_ends_m(layout), strict=True)):
        centre = np.array([*(0.5 * (start + end)), 0.5 * (low_m + high_m)])
        size = np.linalg.norm(end - start), high_m - low_m
        transform = _transform(_facing_the_room(start, end), centre)
        is_guessed = bool(layout.wall_is_guessed_w[i])
        confidence = 0.0 if is_guessed else float(layout.wall_confidence_w[i])
        yield model.Wall(
            **_surface(f"wall_{i}", {"wall": NOTHING}, confidence, size, transform, identify),
            is_guessed=is_guessed,
            is_height_measured=is_measured,
            sigma=model.WallSigma(
                position=rounded(layout.wall_sigma_m_w[i]),
                length=rounded(layout.length_sigma_m_w[i]),
                height=rounded(np.hypot(layout.floor_sigma_m, layout.ceiling_sigma_m)) if is_measured else None,
            ),
        )


def _openings(
    layout: Layout, walls: list[model.Wall], low_m: float, identify: Identify
) -> tuple[list[model.Door], list[model.Window], list[model.Passage]]:
    starts, ends = wall_ends_m(layout)
    kinds: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
        "door": (model.Door, {"door": model.DoorState(is_open=False)}, []),
        "window": (model.Window, {"window": NOTHING}, []),
        "passage": (model.Passage, {"opening": NOTHING}, []),
    }
    for k, kind in enumerate(layout.opening_kind_k):
        made, category, found = kinds[kind]
        wall = int(layout.opening_wall_k[k])
        along = (ends[wall] - starts[wall]) / np.linalg.norm(ends[wall] - starts[wall])
        width, height = float(layout.opening_width_m_k[k]), float(layout.opening_height_m_k[k])
        start, sill = float(layout.opening_start_m_k[k]), float(layout.opening_sill_m_k[k])
        centre = np.array([*(starts[wall] + along * (start + 0.5 * width)), low_m + sill + 0.5 * height])
        transform = _transform(_facing_the_room(starts[wall], ends[wall]), centre)
        surface = _surface(
            f"{kind}_{len(found)}", category, float(layout.opening_confidence_k[k]), (width, height), transform,
            identify, parent=walls[wall].identifier,
        )  # fmt: skip
        sigma = model.OpeningSigma(edge=rounded(layout.opening_sigma_m_k[k]))
        found.append(made(**surface, start=rounded(start), sill=rounded(sill), sigma=sigma))
    return kinds["door"][2], kinds["window"][2], kinds["passage"][2]


def main_direction_rad(angle_rad_n: F64, length_n: F64) -> float:
    """The direction, of those given, along or across which the greatest length runs (within a degree); 0 of none."""
    if len(angle_rad_n) == 0:
        return 0.0
    off_nn = (angle_rad_n[:, None] - angle_rad_n + np.pi / 4) % (np.pi / 2) - np.pi / 4
    along_n = (np.where(np.abs(off_nn) < np.radians(1.0), 1.0, 0.0) * length_n).sum(axis=1)
    best = np.flatnonzero(along_n > along_n.max() - 1e-6)
    return float(angle_rad_n[best[np.argmax(length_n[best])]])


def _level(layout: Layout, z_m: float, name: str, down: bool, identify: Identify) -> dict[str, Any]:
    """The footprint as a surface at a height; its own z is up, or down for a ceiling."""
    start_w2, end_w2 = wall_ends_m(layout)
    edge_w2 = (end_w2 - start_w2) * np.where(layout.wall_is_guessed_w, 1e-3, 1.0)[:, None]
    turn = main_direction_rad(np.arctan2(edge_w2[:, 1], edge_w2[:, 0]), np.linalg.norm(edge_w2, axis=1))
    x, y = np.array([np.cos(turn), np.sin(turn), 0.0]), np.array([-np.sin(turn), np.cos(turn), 0.0])
    y, z = (-y, -UP) if down else (y, UP)
    own_n2 = layout.corners_world_m_n2 @ np.stack((x, y), axis=1)[:2]
    middle, size = 0.5 * (own_n2.min(axis=0) + own_n2.max(axis=0)), np.ptp(own_n2, axis=0)
    own_n2 = own_n2 - middle
    transform = _transform(np.stack((x, y, z), axis=1), middle[0] * x + middle[1] * y + z_m * UP)
    polygon = own_n2[::-1] if down else own_n2  # counter-clockwise seen from the room
    confidence = float(np.where(layout.wall_is_guessed_w, 0.0, layout.wall_confidence_w).mean())
    return _surface(f"{name}_0", {name: NOTHING}, confidence, size, transform, identify, polygon=polygon)


def _floors(layout: Layout, identify: Identify) -> list[model.Floor]:
    if not layout.is_closed or layout.floor_z_world_m is None:
        return []
    surface = _level(layout, layout.floor_z_world_m, "floor", False, identify)
    return [model.Floor(**surface, sigma=model.LevelSigma(height=rounded(layout.floor_sigma_m)))]


def _ceilings(layout: Layout, identify: Identify) -> list[model.Ceiling]:
    if not layout.is_closed or layout.ceiling_z_world_m is None:
        return []
    surface = _level(layout, layout.ceiling_z_world_m, "ceiling", True, identify)
    return [model.Ceiling(**surface, sigma=model.LevelSigma(height=rounded(layout.ceiling_sigma_m)))]


# --- furniture --------------------------------------------------------------------------------------


def furniture_names(furniture: Furniture) -> list[str]:
    """table_0, chair_0, chair_1, ...: numbered within their kind."""
    seen: Counter[str] = Counter()
    names = []
    for kind in furniture.kind_k:
        names.append(f"{kind}_{seen[kind]}")
        seen[kind] += 1
    return names


def _boxes(furniture: Furniture, identify: Identify) -> tuple[list[model.Object], list[model.OtherObject]]:
    objects: list[model.Object] = []
    others: list[model.OtherObject] = []
    names = furniture_names(furniture)
    for k, kind in enumerate(furniture.kind_k):
        yaw, on = float(furniture.yaw_world_rad_k[k]), int(furniture.stands_on_k[k])
        own_R_33 = np.stack(([np.cos(yaw), np.sin(yaw), 0.0], UP, [np.sin(yaw), -np.cos(yaw), 0.0]), axis=1)
        width, depth, height = furniture.size_m_k3[k]
        width_sigma, depth_sigma, height_sigma = furniture.size_sigma_m_k3[k]
        x_sigma, y_sigma, z_sigma = furniture.centre_sigma_m_k3[k]
        box: dict[str, Any] = {
            "identifier": identify(names[k]),
            "name": names[k],
            "category": {kind: NOTHING},
            **_confidence(float(furniture.confidence_k[k])),
            "dimensions": tuple(rounded((width, height, depth))),
            "transform": _transform(own_R_33, furniture.centre_world_m_k3[k]),
            "parent_identifier": identify(names[on]) if on >= 0 else None,
            "story": 0,
            "attributes": {},
            "stands_on": {ON_FLOOR: "floor", ON_WALL: "wall"}.get(on, "object"),
            "sigma": model.BoxSigma(
                dimensions=tuple(rounded((width_sigma, height_sigma, depth_sigma))),
                centre=tuple(rounded((x_sigma, z_sigma, y_sigma))),
            ),
        }
        if kind in model.OBJECT_KINDS:
            objects.append(model.Object(**box))
        else:
            others.append(model.OtherObject(**box))
    return objects, others


# --- the room as a whole ----------------------------------------------------------------------------


def _measured(layout: Layout) -> model.Measured:
    starts, ends = wall_ends_m(layout)
    floor_z, ceiling_z = layout.floor_z_world_m, layout.ceiling_z_world_m
    perimeter = float(np.linalg.norm(ends - starts, axis=1).sum())
    area = height = volume = None
    if layout.is_closed:
        (x, y), (x_next, y_next) = starts.T, ends.T
        area = _quantity(0.5 * float((x * y_next - x_next * y).sum()), layout.area_sigma_m2)
    if floor_z is not None and ceiling_z is not None:
        height = _quantity(ceiling_z - floor_z, float(np.hypot(layout.floor_sigma_m, layout.ceiling_sigma_m)))
    if area is not None and height is not None and _is_level(layout):
        assert area.sigma is not None and height.sigma is not None
        sigma = np.hypot(area.value * height.sigma, height.value * area.sigma)
        volume = _quantity(area.value * height.value, float(sigma))
    return model.Measured(
        is_closed=layout.is_closed,
        corners=[
            model.Corner(x=x, z=z, sigma=sigma)
            for (x, z), sigma in zip(
                rounded(layout.corners_world_m_n2 * (1, -1)), rounded(layout.corner_sigma_m_n), strict=True
            )
        ],
        perimeter=_quantity(perimeter, None) if layout.is_closed else None,
        area=area,
        height=height,
        volume=volume,
        floor_y=None if floor_z is None else _quantity(floor_z, layout.floor_sigma_m),
        ceiling_y=None if ceiling_z is None else _quantity(ceiling_z, layout.ceiling_sigma_m),
        floor_levels=rounded(layout.floor_levels_world_m_l),
        ceiling_planes=[
            model.CeilingPlane(slope_x=a, slope_z=-b + 0.0, y0=c, area=area_m2)
            for a, b, c, area_m2 in rounded(layout.ceiling_planes_l4)
        ],
        snapped=layout.snapped,
    )


def _quantity(value: float, sigma: float | None) -> model.Quantity:
    return model.Quantity(value=rounded(value), sigma=None if sigma is None else rounded(sigma))


def _is_level(layout: Layout) -> bool:
    """Is the ceiling level and of one height, but for lamps and beams?"""
    a, b, c, area_m2 = layout.ceiling_planes_l4.reshape(-1, 4).T
    is_level = (a == 0) & (b == 0) & (np.abs(c - (layout.ceiling_z_world_m or 0.0)) < 0.05)
    return bool(area_m2[is_level].sum() >= LEVEL_SHARE * area_m2.sum())


def _warnings(layout: Layout, furniture: Furniture, measured: model.Measured) -> list[str]:
    sentences = [*layout.warnings, *furniture.warnings]
    guessed = [f"wall_{i}" for i in np.flatnonzero(layout.wall_is_guessed_w)]
    if len(layout.wall_is_guessed_w) == 0:
        sentences.append("There are no walls: no outline, no area and no volume are given.")
    elif not layout.is_closed:
        sentences.append("The outline is open: no floor polygon, no area and no volume are given.")
    if guessed:
        sentences.append(f"Guessed, not seen: {', '.join(guessed)}.")
    if layout.floor_z_world_m is None:
        sentences.append("The floor is missing: heights count from the lowest surface that was seen.")
    if layout.ceiling_z_world_m is None:
        sentences.append("No ceiling was seen: the height of the room is unknown.")  # as layout says it
        if len(layout.wall_is_guessed_w):
            sentences.append("Without a ceiling walls are drawn as high as the highest surface that was seen.")
    if measured.area is not None and measured.height is not None and measured.volume is None:
        sentences.append("The ceiling is not level or has several heights: no volume is given.")
    if len(furniture.kind_k) == 0:
        sentences.append("No furniture was found.")
    return list(dict.fromkeys(sentences))
