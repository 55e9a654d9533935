"""What the person receives: the room as GLB, document, floor plan, table and pictures, and a manifest of it all.

room.glb (mesh, layout and boxes), room.json (in the shape of RoomPlan's CapturedRoom), plan.svg and plan.png (the floor
plan to scale), measurements.csv, preview.png and top.png (pictures of the mesh), manifest.json (what is what).

Belongs here: which files there are, and the manifest. Does not belong here: how any of them is made (room_glb.py,
room_document.py, floor_plan.py, measurements.py, pictures.py); where they are kept.

The axes of room.glb and room.json are those of glTF (right-handed, +Y up, metres): a point (x, y, z) of the world
(z up) becomes (x, z, -y). The origin stays the device's own, so that an AR session can find itself again; what turned
the device's world upright is `world_T_scan_33` in the manifest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import Files, decode_image, encode_png
from geomagic_dagster.cv.floor_plan import draw_plan
from geomagic_dagster.cv.measurements import measurements_csv
from geomagic_dagster.cv.page import to_png, to_svg
from geomagic_dagster.cv.pictures import Surface, perspective, srgb_to_linear, top_down
from geomagic_dagster.cv.room_document import ROOM_T_WORLD_33, room_document, rounded, world_to_room
from geomagic_dagster.cv.room_glb import room_glb
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, StageError, minutes, stage
from geomagic_dagster.cv.types import Frames, Furniture, Layout, Mesh, Package, Poses, Scan

MANIFEST_SCHEMA = 2
PLAIN_RGB = (190, 190, 190)  # what is drawn of a scan without colour


class PackageParams(Params):
    preview_width_px: int = Field(1280, ge=64, le=4096, description="Width of preview.png.")
    preview_height_px: int = Field(960, ge=64, le=4096, description="Height of preview.png.")
    top_max_px: int = Field(1280, ge=64, le=4096, description="The room's longer side in top.png is at most this.")
    cut_above_floor_m: float = Field(
        2.0, gt=0, description="The pictures leave out all that is higher above the floor: ceiling, lamps, beams."
    )
    view_elevation_rad: float = Field(0.87, gt=0.5, lt=1.5, description="How steeply preview.png looks down.")
    plan_dpi: int = Field(150, ge=50, le=600, description="Resolution of plan.png on its page.")


@stage(
    version="2",
    timeout=minutes(2),
    retries=2,
    memory_gb=2,
    expects={"glb_bytes": (10e3, 10e6), "preview_covered": (0.1, 0.95), "warnings": (0, 6)},
)
def package(
    scan: Scan,
    frames: Frames,
    poses: Poses,
    mesh: Mesh,
    layout: Layout,
    furniture: Furniture,
    params: PackageParams = PackageParams(),
) -> Package:
    """All files of a room, also where only a part of it was seen; the same input gives the same bytes.

    What is missing (a closed outline, floor, ceiling, walls, furniture) stands in `warnings` of room.json and of the
    manifest, and on the plan.

    Raises: ScanRejected where the mesh has no triangle or a vertex that is not a number.
    """
    mesh = _checked(mesh)
    has_colour = frames.recording.rgb is not None
    rgb_v3 = mesh.rgb_v3 if has_colour else np.full_like(mesh.rgb_v3, PLAIN_RGB)
    surface = Surface(mesh.vertices_world_m_v3, mesh.triangles_f3, mesh.normals_world_v3, srgb_to_linear(rgb_v3))
    cut_z_m = _floor_z_m(mesh, layout, poses) + params.cut_above_floor_m
    size_px = params.preview_width_px, params.preview_height_px

    document = room_document(scan, mesh, layout, furniture)
    preview_rgb_hw3, preview_covered = perspective(surface, cut_z_m, *size_px, params.view_elevation_rad)
    top_rgb_hw3, top_scale = top_down(surface, cut_z_m, params.top_max_px)
    plan = draw_plan(document)
    contents = {
        "measurements.csv": measurements_csv(document),
        "plan.png": to_png(plan.page, params.plan_dpi),
        "plan.svg": to_svg(plan.page),
        "preview.png": encode_png(preview_rgb_hw3),
        "room.glb": room_glb(mesh, has_colour, document),
        "room.json": document.to_json(),
        "top.png": encode_png(top_rgb_hw3),
    }
    manifest = {
        "schema_version": MANIFEST_SCHEMA,
        "scan": {"name": scan.name, "source_format": scan.source_format},
        "frames": {
            "in_scan": len(scan.recording),
            "kept": len(frames.scan_frame_b),
            "used": int(poses.is_used_b.sum()),
        },
        "units": "metres",
        "axes": {
            "room": "right-handed, +Y up (glTF); the origin is the device's own",
            "world": "right-handed, +Z up; the origin is the device's own",
            "room_T_world_33": ROOM_T_WORLD_33.astype(int).tolist(),
            "world_T_scan_33": rounded(poses.world_T_scan_44[:3, :3], 9),
            "gravity_from": poses.gravity_from,
        },
        "room": {
            "identifier": document.identifier,
            "floor_y_m": document.measured.floor_y.value if document.measured.floor_y else None,
            "min_xyz_m": rounded(world_to_room(mesh.vertices_world_m_v3).min(axis=0)),
            "max_xyz_m": rounded(world_to_room(mesh.vertices_world_m_v3).max(axis=0)),
        },
        "mesh": {
            "vertices": len(mesh.vertices_world_m_v3),
            "triangles": len(mesh.triangles_f3),
            "area_m2": rounded(surface.area_m2_f.sum(), 3),
            "voxel_m": rounded(mesh.voxel_m),
            "has_colour": has_colour,
        },
        "parts": {
            "is_closed": document.measured.is_closed,
            "walls": len(document.walls),
            "doors": len(document.doors),
            "windows": len(document.windows),
            "openings": len(document.openings),
            "boxes": len(document.boxes()),
        },
        "preview": {"covered": rounded(preview_covered, 4)},
        "top": {
            "metres_per_pixel": rounded(top_scale.metres_per_px),
            "left_x_m": rounded(top_scale.left_m),
            "top_z_m": rounded(-top_scale.top_m),
            "note": "the centre of pixel (column, row) is x = left_x_m + column * metres_per_pixel, "
            "z = top_z_m + row * metres_per_pixel in room.glb",
        },
        "plan": {
            "paper": plan.paper,
            "width_mm": plan.page.width_mm,
            "height_mm": plan.page.height_mm,
            "scale": plan.scale,
            "dpi": params.plan_dpi,
        },
        "warnings": document.warnings,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        },
    }
    # backslashreplace: a file name that is not UTF-8 reaches us as lone surrogates, and \udcff is how JSON writes these
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return Package(Files({**contents, "manifest.json": text.encode("utf-8", "backslashreplace")}))


def measure_package(package: Package) -> dict[str, float]:
    """Bytes, triangles and size of the room; `preview_covered` is the share of preview.png that shows the room."""
    manifest = json.loads(package.files["manifest.json"])
    room, parts = manifest["room"], manifest["parts"]
    size_m = dict(zip("xyz", np.subtract(room["max_xyz_m"], room["min_xyz_m"]), strict=True))
    return {
        "glb_bytes": float(manifest["files"]["room.glb"]["bytes"]),
        "package_bytes": float(sum(len(content) for content in package.files.values())),
        "triangles": float(manifest["mesh"]["triangles"]),
        "vertices": float(manifest["mesh"]["vertices"]),
        "preview_covered": float(manifest["preview"]["covered"]),
        **{f"size_{axis}_m": float(size) for axis, size in size_m.items()},
        **{name: float(parts[name]) for name in ("walls", "doors", "windows", "openings", "boxes")},
        "plan_scale": float(manifest["plan"]["scale"]),
        "warnings": float(len(manifest["warnings"])),
    }


def preview_package(package: Package) -> NDArray[np.uint8]:
    """preview.png with the floor plan beside it, (h, w, 3) uint8."""
    import cv2

    preview_hw3, plan = decode_image(package.files["preview.png"]), decode_image(package.files["plan.png"])
    height = preview_hw3.shape[0]
    width = round(plan.shape[1] * height / plan.shape[0])
    plan_hw3 = cv2.resize(cv2.cvtColor(plan, cv2.COLOR_GRAY2RGB), (width, height), interpolation=cv2.INTER_AREA)
    return np.hstack((preview_hw3, plan_hw3))


# --- the mesh ------------------------------------------------------------------------------------


def _checked(mesh: Mesh) -> Mesh:
    """The mesh with normals of length 1, once it holds what types.py promises."""
    v, f = len(mesh.vertices_world_m_v3), len(mesh.triangles_f3)
    if v == 0 or f == 0:
        raise ScanRejected(
            "package",
            expected="a mesh with a surface",
            received=f"{v} vertices and {f} triangles",
            do="Scan again, slowly, one to three metres from walls and furniture, with the depth sensor uncovered.",
        )
    broken_v = ~np.isfinite(mesh.vertices_world_m_v3).all(axis=1)
    if broken_v.any():
        raise ScanRejected(
            "package",
            expected="vertices that are finite numbers",
            received=f"{broken_v.sum()} of {v} that are not, first vertex {broken_v.argmax()}",
            do="The poses or the depth of this scan hold numbers that are none: export it again or scan again.",
        )
    if mesh.triangles_f3.min() < 0 or mesh.triangles_f3.max() >= v:
        raise StageError(
            f"package: expected triangles of vertices 0 to {v - 1}; got {mesh.triangles_f3.min()} to "
            f"{mesh.triangles_f3.max()}. This is a fault of the mesh stage."
        )
    if mesh.rgb_v3.shape != (v, 3) or mesh.normals_world_v3.shape != (v, 3):
        raise StageError(
            f"package: expected a colour and a normal for each of {v} vertices; got {mesh.rgb_v3.shape} and "
            f"{mesh.normals_world_v3.shape}. This is a fault of the mesh stage."
        )
    normals_v3 = mesh.normals_world_v3.astype(np.float64)
    length_v = np.linalg.norm(normals_v3, axis=1)
    without_v = ~(length_v > 1e-9)  # also where it is not a number
    if without_v.any():
        raise StageError(
            f"package: expected a normal at each vertex; {without_v.sum()} of {v} have none, first vertex "
            f"{without_v.argmax()}. This is a fault of the mesh stage."
        )
    return replace(mesh, normals_world_v3=(normals_v3 / length_v[:, None]).astype(np.float32))


def _floor_z_m(mesh: Mesh, layout: Layout, poses: Poses) -> float:
    """Height of the floor; where none was seen, below which lies one in a hundred vertices."""
    for seen in (layout.floor_z_world_m, poses.floor_z_world_m):
        if seen is not None:
            return seen
    return float(np.quantile(mesh.vertices_world_m_v3[:, 2], 0.01))
