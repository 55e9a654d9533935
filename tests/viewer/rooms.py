"""A small room and its package, laid by hand: four walls of 4 m by 3 m, a door, a table, one guessed wall."""

from __future__ import annotations

import uuid

import numpy as np
import trimesh

from geomagic_dagster.cv import room_model as model
from geomagic_dagster.cv.containers import encode_png
from geomagic_dagster.cv.room_model import RoomDocument

WIDTH, DEPTH, HEIGHT = 4.0, 3.0, 2.5
NOTHING = model.Nothing()
PLAN = '<svg xmlns="http://www.w3.org/2000/svg" width="297mm" height="210mm" viewBox="0 0 40 30"><rect width="40" height="30" fill="#fff"/><text x="5" y="15">4.00 m</text></svg>'


def transform(angle_rad: float, centre_xyz: tuple[float, float, float]) -> tuple[float, ...]:
    """By columns: turned about y, then moved."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return (float(c), 0.0, float(-s), 0.0, 0.0, 1.0, 0.0, 0.0, float(s), 0.0, float(c), 0.0, *centre_xyz, 1.0)


def element(
    name: str, category: str, size: tuple[float, float, float], placed: tuple[float, ...], value=NOTHING
) -> dict:
    return {
        "identifier": str(uuid.uuid5(uuid.NAMESPACE_OID, name)).upper(),
        "name": name,
        "category": {category: value},
        "confidence": {"high": NOTHING},
        "confidence_value": 0.9,
        "dimensions": size,
        "transform": placed,
        "parent_identifier": None,
        "story": 0,
    }


SURFACE = {"polygon_corners": [], "completed_edges": [], "curve": None}


def document(
    warnings: tuple[str, ...] = ("The wall behind the sofa was not seen.",), table: str = "table_0"
) -> RoomDocument:
    """The room of this file as room.json has it."""
    walls = [
        model.Wall(
            **element(f"wall_{i}", "wall", (length, HEIGHT, 0.0), transform(turn, (x, HEIGHT / 2, z))),
            **SURFACE,
            is_guessed=i == 3,
            is_height_measured=True,
            sigma=model.WallSigma(position=0.004, length=0.006, height=0.003),
        )
        for i, (length, turn, x, z) in enumerate(
            [
                (WIDTH, 0.0, 0.0, -DEPTH / 2),
                (DEPTH, -np.pi / 2, WIDTH / 2, 0.0),
                (WIDTH, np.pi, 0.0, DEPTH / 2),
                (DEPTH, np.pi / 2, -WIDTH / 2, 0.0),
            ]
        )
    ]
    door = model.Door(
        **element(
            "door_0", "door", (0.9, 2.0, 0.0), transform(0.0, (1.0, 1.0, -DEPTH / 2)), model.DoorState(is_open=False)
        ),
        **SURFACE,
        start=1.45,
        sill=0.0,
        sigma=model.OpeningSigma(edge=0.02),
    )
    box = model.Object(
        **element(table, "table", (1.2, 0.74, 0.8), transform(0.3, (0.2, 0.37, 0.3))),
        attributes={},
        stands_on="floor",
        sigma=model.BoxSigma(dimensions=(0.02, 0.01, 0.025), centre=(0.01, 0.01, 0.01)),
    )  # fmt: skip
    return RoomDocument(
        schema_version=1,
        units="metres",
        axes="right-handed, +Y up, those of room.glb; the origin is the device's own",
        version=2,
        identifier="00000000-0000-0000-0000-000000000000",
        story=0,
        reference_origin_transform=transform(0.0, (0.0, 0.0, 0.0)),
        walls=walls,
        doors=[door],
        windows=[],
        openings=[],
        floors=[],
        objects=[box],
        sections=[],
        ceilings=[],
        other_objects=[],
        measured=model.Measured(
            is_closed=True,
            corners=[],
            perimeter=model.Quantity(value=14.0, sigma=None),
            area=model.Quantity(value=12.0, sigma=0.03),
            height=model.Quantity(value=HEIGHT, sigma=0.003),
            volume=None,
            floor_y=model.Quantity(value=0.0, sigma=0.002),
            ceiling_y=None,
            floor_levels=[0.0],
            ceiling_planes=[],
            snapped="",
        ),
        warnings=list(warnings),
    )


def glb() -> bytes:
    """The inside of the room and its table, each side in a colour of its own; the node is "room" as in room.glb."""
    shell = trimesh.creation.box((WIDTH, HEIGHT, DEPTH))
    shell.apply_translation((0, HEIGHT / 2, 0))
    shell.invert()
    table = trimesh.creation.box((1.2, 0.74, 0.8), trimesh.transformations.rotation_matrix(0.3, (0, 1, 0)))
    table.apply_translation((0.2, 0.37, 0.3))
    room = trimesh.util.concatenate([shell, table])
    room.unmerge_vertices()
    normals = np.repeat(room.face_normals, 3, axis=0)
    room.visual = trimesh.visual.ColorVisuals(room, vertex_colors=np.uint8(120 + 100 * np.abs(normals)))
    scene = trimesh.Scene()
    scene.add_geometry(room, node_name="room", geom_name="room")
    return scene.export(file_type="glb")


def package(**instead: bytes | None) -> dict[str, bytes]:
    """All files of a package; `plan_svg=None` leaves one out, `room_json=b"..."` takes another in its place."""
    grey = encode_png(np.full((60, 80, 3), 128, np.uint8))
    csv = (
        "what,name,value,unit,sigma,confidence,note\n"
        "area,room,12,m2,0.03,,\nperimeter,room,14,m,,,\nceiling height,room,2.5,m,0.003,,\nvolume,room,30,m3,0.1,,\n"
        "width,table_0,1.2,m,0.02,0.9,\nheight,table_0,0.74,m,0.01,0.9,\ndepth,table_0,0.8,m,0.025,0.9,\n"
        "length,wall_0,4,m,0.006,0.9,\nheight,wall_0,2.5,m,0.003,0.9,\n"
        'length,wall_3,3,m,0.006,0,"guessed, not seen"\nheight,wall_3,2.5,m,0.003,0,"guessed, not seen"\n'
    )
    manifest = b'{"scan": {"name": "my scan", "source_format": "tum_rgbd"}, "frames": {"in_scan": 9, "used": 8}}'
    files = {
        "room.glb": glb(),
        "room.json": document().to_json(),
        "plan.svg": PLAN.encode(),
        "plan.png": grey,
        "measurements.csv": csv.encode(),
        "preview.png": grey,
        "top.png": grey,
        "manifest.json": manifest,
    }
    changed = {name.replace("_", ".", 1): content for name, content in instead.items()}
    assert changed.keys() <= files.keys()
    return {name: content for name, content in (files | changed).items() if content is not None}
