"""What the person receives: the room as GLB, two pictures of it, and a manifest that says what is what.

Belongs here: writing `room.glb`, drawing `preview.png` and `top.png` from the mesh, `manifest.json`.
Does not belong here: anything that changes the mesh; where the files are kept.

The axes of room.glb are those of glTF (right-handed, +Y up, metres): a point (x, y, z) of the world
(z up) becomes (x, z, -y). The origin stays the device's own, so that an AR session can find itself
again; what turned the device's world upright is `world_T_scan_33` in the manifest.

Both pictures are cast with Embree rays (embreex directly: trimesh's wrapper hides the barycentric
coordinates and takes three times as long). The same mesh gives the same bytes whatever the number of
threads; between kinds of processor Embree may round differently, and with it single pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.containers import Files, decode_image, encode_png
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, minutes, stage
from geomagic_dagster.cv.types import Frames, Mesh, Package, Poses, Scan

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rays = Callable[[F64, F64], tuple[F64, F64]]
"""Columns (n,) and rows (n,) of a picture to origins (n, 3) and directions (n, 3) in the world."""

MANIFEST_SCHEMA = 1
ROOM_T_WORLD_33 = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""World (z up) to the axes of glTF (y up): a quarter turn about x, so no mirror image."""
BACKGROUND_RGB = (58, 60, 64)  # darker than most walls: their cut tops and the gaps in them stand out
PLAIN_RGB = (190, 190, 190)  # what is drawn of a scan without colour
FIELD_OF_VIEW_RAD = 0.6  # vertical, of preview.png: a long lens, so that walls stay nearly upright
FRAME_FILL = 0.94  # share of preview.png's half width and half height that the room may fill
AMBIENT = 0.55  # light on what is seen edge-on; what faces the viewer has the captured colour itself


class PackageParams(Params):
    preview_width_px: int = Field(1280, ge=64, le=4096, description="Width of preview.png.")
    preview_height_px: int = Field(960, ge=64, le=4096, description="Height of preview.png.")
    top_max_px: int = Field(1280, ge=64, le=4096, description="The room's longer side in top.png is at most this.")
    cut_above_floor_m: float = Field(
        2.0, gt=0, description="The pictures leave out all that is higher above the floor: ceiling, lamps, beams."
    )
    view_elevation_rad: float = Field(0.87, gt=0.5, lt=1.5, description="How steeply preview.png looks down.")


@stage(
    version="1",
    timeout=minutes(2),
    retries=2,
    memory_gb=2,
    expects={"glb_bytes": (10e3, 10e6), "preview_covered": (0.1, 0.95)},
)
def package(scan: Scan, frames: Frames, poses: Poses, mesh: Mesh, params: PackageParams = PackageParams()) -> Package:
    """room.glb, preview.png, top.png and manifest.json of a room's mesh; the same mesh gives the same bytes.

    Raises: ScanRejected where the mesh has no triangle or a vertex that is not a number.
    """
    mesh = _checked(mesh)
    has_colour = frames.recording.rgb is not None
    rgb_v3 = mesh.rgb_v3 if has_colour else np.full_like(mesh.rgb_v3, PLAIN_RGB)
    cut_z_m = _floor_z_m(mesh, poses) + params.cut_above_floor_m
    surface = _Surface(mesh.vertices_world_m_v3, mesh.triangles_f3, mesh.normals_world_v3, srgb_to_linear(rgb_v3))

    preview_rgb_hw3, preview_covered = _perspective(surface, cut_z_m, params)
    top_rgb_hw3, top_scale = _top_down(surface, cut_z_m, params.top_max_px)
    contents = {
        "preview.png": encode_png(preview_rgb_hw3),
        "room.glb": _glb(mesh, has_colour),
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
            "world_T_scan_33": _rounded(poses.world_T_scan_44[:3, :3], 9),
            "gravity_from": poses.gravity_from,
        },
        "room": {
            "floor_y_m": None if poses.floor_z_world_m is None else _rounded(poses.floor_z_world_m),
            "min_xyz_m": _rounded(world_to_room(mesh.vertices_world_m_v3).min(axis=0)),
            "max_xyz_m": _rounded(world_to_room(mesh.vertices_world_m_v3).max(axis=0)),
        },
        "mesh": {
            "vertices": len(mesh.vertices_world_m_v3),
            "triangles": len(mesh.triangles_f3),
            "area_m2": _rounded(surface.area_m2_f.sum(), 3),
            "voxel_m": _rounded(mesh.voxel_m),
            "has_colour": has_colour,
        },
        "preview": {"covered": _rounded(preview_covered, 4)},
        "top": top_scale,
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
    room = manifest["room"]
    size_m = dict(zip("xyz", np.subtract(room["max_xyz_m"], room["min_xyz_m"]), strict=True))
    return {
        "glb_bytes": float(manifest["files"]["room.glb"]["bytes"]),
        "package_bytes": float(sum(len(content) for content in package.files.values())),
        "triangles": float(manifest["mesh"]["triangles"]),
        "vertices": float(manifest["mesh"]["vertices"]),
        "preview_covered": float(manifest["preview"]["covered"]),
        **{f"size_{axis}_m": float(size) for axis, size in size_m.items()},
    }


def preview_package(package: Package) -> NDArray[np.uint8]:
    """The perspective picture, (h, w, 3) uint8."""
    return decode_image(package.files["preview.png"])


def world_to_room(points_world_n3: NDArray[Any]) -> NDArray[Any]:
    """Points or directions (n, 3), from z up to glTF's y up: (x, y, z) to (x, z, -y), exact in any type."""
    return np.stack((points_world_n3[:, 0], points_world_n3[:, 2], -points_world_n3[:, 1]), axis=1)


def srgb_to_linear(rgb_n3: NDArray[np.uint8]) -> F32:
    """8-bit sRGB to linear light, 0 to 1 (IEC 61966-2-1)."""
    level = np.arange(256) / 255.0
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)[rgb_n3]


def linear_to_srgb(linear_n3: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Linear light to 8-bit sRGB; the inverse of `srgb_to_linear`."""
    linear = np.clip(linear_n3, 0.0, 1.0)
    level = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(level * 255.0).astype(np.uint8)


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
        raise ValueError(
            f"package: expected triangles of vertices 0 to {v - 1}; got {mesh.triangles_f3.min()} to "
            f"{mesh.triangles_f3.max()}. This is a fault of the mesh stage."
        )
    if mesh.rgb_v3.shape != (v, 3) or mesh.normals_world_v3.shape != (v, 3):
        raise ValueError(
            f"package: expected a colour and a normal for each of {v} vertices; got {mesh.rgb_v3.shape} and "
            f"{mesh.normals_world_v3.shape}. This is a fault of the mesh stage."
        )
    normals_v3 = mesh.normals_world_v3.astype(np.float64)
    length_v = np.linalg.norm(normals_v3, axis=1)
    without_v = ~(length_v > 1e-9)  # also where it is not a number
    if without_v.any():
        raise ValueError(
            f"package: expected a normal at each vertex; {without_v.sum()} of {v} have none, first vertex "
            f"{without_v.argmax()}. This is a fault of the mesh stage."
        )
    return replace(mesh, normals_world_v3=(normals_v3 / length_v[:, None]).astype(np.float32))


def _floor_z_m(mesh: Mesh, poses: Poses) -> float:
    """Height of the floor; where none was seen, below which lies one in a hundred vertices."""
    if poses.floor_z_world_m is not None:
        return poses.floor_z_world_m
    return float(np.quantile(mesh.vertices_world_m_v3[:, 2], 0.01))


def _glb(mesh: Mesh, has_colour: bool) -> bytes:
    """glTF 2.0, binary, of one mesh and one node, both named "room".

    Vertex colours in glTF are linear light. Eight bits of that show steps in the dark (sRGB 1 to 12
    would all become 0 or 1), so they are stored in 16 bits, with an alpha of 1 to keep rows of four bytes.
    """
    import trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    attributes: dict[str, Any] = {}
    if has_colour:
        linear_v3 = np.rint(srgb_to_linear(mesh.rgb_v3).astype(np.float64) * 65535.0).astype(np.uint16)
        attributes["_COLOR"] = np.pad(linear_v3, ((0, 0), (0, 1)), constant_values=65535)
    material = PBRMaterial(name="room", metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    room = trimesh.Trimesh(
        world_to_room(mesh.vertices_world_m_v3),
        mesh.triangles_f3,
        vertex_normals=world_to_room(mesh.normals_world_v3),
        vertex_attributes=attributes,
        visual=TextureVisuals(material=material),
        process=False,
    )
    scene = trimesh.Scene()
    scene.add_geometry(room, node_name="room", geom_name="room")
    return export_glb(scene, include_normals=True, tree_postprocessor=_finish_gltf)


def _finish_gltf(tree: dict[str, Any]) -> None:
    """What trimesh does not write itself: colours of more than 8 bits, buffer targets, our name."""
    tree["asset"]["generator"] = "geomagic"
    mesh = tree["meshes"][0]
    del mesh["extras"]  # empty
    primitive = mesh["primitives"][0]
    attributes = primitive["attributes"]
    if "_COLOR" in attributes:
        attributes["COLOR_0"] = attributes.pop("_COLOR")
        tree["accessors"][attributes["COLOR_0"]]["normalized"] = True
    for accessor in attributes.values():
        tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]["target"] = 34962  # ARRAY_BUFFER
    indices = tree["accessors"][primitive["indices"]]
    tree["bufferViews"][indices["bufferView"]]["target"] = 34963  # ELEMENT_ARRAY_BUFFER


def _rounded(value: Any, digits: int = 6) -> Any:
    """For the manifest: micrometres are enough, and read better than the tail of a binary fraction."""
    return (np.round(np.asarray(value, np.float64), digits) + 0.0).tolist()  # + 0.0: no minus zero


# --- the pictures --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Hits:
    """Where those h of many rays that met the surface met it first."""

    ray_h: NDArray[np.int64]
    distance_h: F32
    """In lengths of the ray's direction."""
    linear_h3: F32
    """Colour of the surface, linear light."""
    cosine_h: F32
    """Of the angle between ray and normal: 0 edge-on, 1 head-on."""


@dataclass(frozen=True, eq=False)
class _Surface:
    """The mesh as it is drawn; colours in linear light, because light adds up there."""

    vertices_m_v3: F32
    triangles_f3: NDArray[np.int32]
    normals_v3: F32
    linear_v3: F32

    @cached_property
    def cross_f3(self) -> F64:
        """Towards the free side of each triangle; its length is twice the area."""
        a_f3, b_f3, c_f3 = np.moveaxis(self.vertices_m_v3.astype(np.float64)[self.triangles_f3], 1, 0)
        return np.cross(b_f3 - a_f3, c_f3 - a_f3)

    @cached_property
    def area_m2_f(self) -> F64:
        return np.linalg.norm(self.cross_f3, axis=1) / 2.0

    @cached_property
    def centre_m_3(self) -> F64:
        """Embree computes in float32: around the middle of the room it is exact to a micrometre."""
        return (self.vertices_m_v3.min(axis=0).astype(np.float64) + self.vertices_m_v3.max(axis=0)) / 2.0

    @cached_property
    def _embree_scene(self) -> Any:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        scene = EmbreeScene()
        vertices_v3 = (self.vertices_m_v3 - self.centre_m_3).astype(np.float32)
        TriangleMesh(scene, vertices_v3, np.ascontiguousarray(self.triangles_f3, np.int32))
        return scene

    def facing(self, towards: F64) -> _Surface:
        """Only the triangles whose free side faces these directions, one (3,) or one for each triangle (f, 3).

        So one looks through near walls, and through the ceiling from above, into the room.
        """
        return replace(self, triangles_f3=self.triangles_f3[(self.cross_f3 * towards).sum(axis=1) > 0])

    def seen_by(self, camera: _Camera) -> _Surface:
        return self.facing(camera.centre_m_3 - self.vertices_m_v3[self.triangles_f3[:, 0]])

    def cast(self, origin_m_n3: F64, direction_n3: F64) -> _Hits:
        """What rays from these points in these directions (of any length) meet first."""
        if len(self.triangles_f3) == 0:
            none_0 = np.zeros(0, np.float32)
            return _Hits(np.zeros(0, np.int64), none_0, none_0.reshape(0, 3), none_0)
        found = self._embree_scene.run(
            (origin_m_n3 - self.centre_m_3).astype(np.float32), direction_n3.astype(np.float32), output=True
        )
        ray_h = np.flatnonzero(found["primID"] >= 0)
        corner_h3 = self.triangles_f3[found["primID"][ray_h]]
        u_h, v_h = found["u"][ray_h], found["v"][ray_h]
        weight_h3 = np.stack((1 - u_h - v_h, u_h, v_h), axis=1)
        normal_h3 = np.einsum("hc,hci->hi", weight_h3, self.normals_v3[corner_h3])
        direction_h3 = direction_n3[ray_h].astype(np.float32)
        lengths_h = np.linalg.norm(normal_h3, axis=1) * np.linalg.norm(direction_h3, axis=1)
        cosine_h = np.abs(np.einsum("hi,hi->h", normal_h3, direction_h3)) / np.maximum(lengths_h, 1e-9)
        linear_h3 = np.einsum("hc,hci->hi", weight_h3, self.linear_v3[corner_h3])
        return _Hits(ray_h, found["tfar"][ray_h], linear_h3, cosine_h)


@dataclass(frozen=True, eq=False)
class _Camera:
    """A pinhole camera that looks down at the room."""

    world_R_cam_33: F64
    centre_m_3: F64
    focal_px: float
    width_px: int
    height_px: int

    @classmethod
    def framing(cls, points_m_n3: F64, azimuth_rad: float, elevation_rad: float, width: int, height: int) -> _Camera:
        """As near as can be with all points in the picture, seen from this azimuth (of the viewer) and elevation.

        In camera axes a point is in view where |x - cx| <= tx (z - cz), and so for y: two bounds for each of
        cx and cy, which leave room for each other only where the camera (cx, cy, cz) stands far enough back.
        """
        level = np.cos(elevation_rad)
        towards_viewer_3 = np.array([level * np.cos(azimuth_rad), level * np.sin(azimuth_rad), np.sin(elevation_rad)])
        right_3 = np.array([-np.sin(azimuth_rad), np.cos(azimuth_rad), 0.0])
        world_R_cam_33 = np.stack((right_3, np.cross(-towards_viewer_3, right_3), -towards_viewer_3), axis=1)
        focal_px = height / 2.0 / np.tan(FIELD_OF_VIEW_RAD / 2.0)
        points_cam_n3 = np.einsum("ni,ij->nj", points_m_n3, world_R_cam_33)  # no BLAS, see rays
        centre_cam_3 = np.full(3, np.inf)
        for axis, size in enumerate((width, height)):
            slope = FRAME_FILL * size / 2.0 / focal_px
            high = (points_cam_n3[:, axis] - slope * points_cam_n3[:, 2]).max()
            low = (-points_cam_n3[:, axis] - slope * points_cam_n3[:, 2]).max()
            centre_cam_3[axis] = (high - low) / 2.0
            centre_cam_3[2] = min(centre_cam_3[2], -(high + low) / (2.0 * slope))
        return cls(world_R_cam_33, world_R_cam_33 @ centre_cam_3, focal_px, width, height)

    def rays(self, x_px_n: F64, y_px_n: F64) -> tuple[F64, F64]:
        right_3, down_3, forward_3 = self.world_R_cam_33.T
        across_n1 = ((x_px_n - (self.width_px - 1) / 2.0) / self.focal_px)[:, None]
        along_n1 = ((y_px_n - (self.height_px - 1) / 2.0) / self.focal_px)[:, None]
        # no matrix product: how BLAS rounds depends on the number of threads
        direction_n3 = across_n1 * right_3 + along_n1 * down_3 + forward_3
        return np.broadcast_to(self.centre_m_3, direction_n3.shape), direction_n3


def _perspective(surface: _Surface, cut_z_m: float, params: PackageParams) -> tuple[NDArray[np.uint8], float]:
    """The room as a doll's house, seen from outside and above; and the share of the picture that it covers.

    Eight directions stand for choice: 30 and 60 degrees off the walls' main direction in each quarter, so that
    no wall is seen edge-on. The one that sees the largest surface, in square metres, wins.
    """
    width, height = params.preview_width_px, params.preview_height_px
    shown_v3 = surface.vertices_m_v3.astype(np.float64)
    shown_v3[:, 2] = np.minimum(shown_v3[:, 2], cut_z_m)
    main_rad = _main_direction_rad(surface)

    def view(turn_rad: float, scale: float) -> _Camera:
        return _Camera.framing(
            shown_v3, main_rad + turn_rad, params.view_elevation_rad, round(width * scale), round(height * scale)
        )

    def seen_m2(turn_rad: float) -> float:
        camera = view(turn_rad, 1 / 8)
        y_px, x_px = np.mgrid[: camera.height_px, : camera.width_px].reshape(2, -1).astype(np.float64)
        origin_n3, direction_n3, start_n = _from_cut(*camera.rays(x_px, y_px), cut_z_m)
        hits = surface.seen_by(camera).cast(origin_n3, direction_n3)
        # a pixel of a plane at right angles to the view has (depth / focal length)^2; a slanted surface has more
        pixel_m2_h = ((start_n[hits.ray_h] + hits.distance_h) / camera.focal_px) ** 2
        return float((pixel_m2_h / np.maximum(hits.cosine_h, 0.2)).sum())

    turns_rad = [quarter * np.pi / 2 + off for quarter in range(4) for off in (np.pi / 6, np.pi / 3)]
    camera = view(max(turns_rad, key=seen_m2), 1.0)
    return _draw(surface.seen_by(camera), camera.rays, height, width, cut_z_m)


def _top_down(surface: _Surface, cut_z_m: float, max_px: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The room from straight above, to scale, with a bar of one metre below it; and its scale for the manifest.

    Right is +x; down the picture is -y of the world, which is +z of room.glb. Metres per pixel is the finest
    of 1, 2, 5, 10, 20, ... with which the room fits.
    """
    low_3, high_3 = surface.vertices_m_v3.min(axis=0), surface.vertices_m_v3.max(axis=0)
    longer_m = max(float((high_3 - low_3)[:2].max()), 1.0)  # at least as long as the bar
    metres_per_px = next(
        step * 10.0**power for power in range(-4, 9) for step in (1, 2, 5) if longer_m <= step * 10.0**power * max_px
    )
    margin_px = 24
    left_m = float(np.floor(low_3[0] / metres_per_px) - margin_px) * metres_per_px
    top_m = float(np.ceil(high_3[1] / metres_per_px) + margin_px) * metres_per_px
    width = int(np.ceil((high_3[0] - left_m) / metres_per_px)) + margin_px + 1
    height = int(np.ceil((top_m - low_3[1]) / metres_per_px)) + margin_px + 1
    width = max(width, round(1.0 / metres_per_px) + 4 * margin_px)

    def rays(x_px_n: F64, y_px_n: F64) -> tuple[F64, F64]:
        origin_n3 = np.stack(
            (left_m + x_px_n * metres_per_px, top_m - y_px_n * metres_per_px, np.full_like(x_px_n, high_3[2] + 1.0)),
            axis=1,
        )
        return origin_n3, np.broadcast_to(np.array([0.0, 0.0, -1.0]), origin_n3.shape)

    picture_hw3, _ = _draw(surface.facing(np.array([0.0, 0.0, 1.0])), rays, height, width, cut_z_m)
    scale = {
        "metres_per_pixel": _rounded(metres_per_px),
        "left_x_m": _rounded(left_m),
        "top_z_m": _rounded(-top_m),
        "note": "the centre of pixel (column, row) is x = left_x_m + column * metres_per_pixel, "
        "z = top_z_m + row * metres_per_pixel in room.glb",
    }
    return np.concatenate((picture_hw3, _scale_bar(width, round(1.0 / metres_per_px), margin_px))), scale


def _scale_bar(width: int, metre_px: int, left_px: int) -> NDArray[np.uint8]:
    """(40, width, 3): a white bar of exactly one metre, and "1 m"."""
    import cv2

    strip_hw3 = np.full((40, width, 3), BACKGROUND_RGB, np.uint8)
    strip_hw3[14:18, left_px : left_px + metre_px] = 255
    anchor_px = (left_px + metre_px + 8, 22)
    cv2.putText(strip_hw3, "1 m", anchor_px, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return strip_hw3


def _draw(surface: _Surface, rays: Rays, height: int, width: int, cut_z_m: float) -> tuple[NDArray[np.uint8], float]:
    """(h, w, 3) uint8 of what lies below the cut, four rays a pixel, and the share of it that is not background.

    The light comes from the viewer and is soft: what faces it has its captured colour, the rest is darker.
    """
    picture_hw3 = np.empty((height, width, 3), np.uint8)
    background_3 = srgb_to_linear(np.array(BACKGROUND_RGB, np.uint8))
    covered = 0
    band_rows = max(1, 2**18 // width)  # bounds the memory
    for first in range(0, height, band_rows):
        y_px, x_px = np.mgrid[first : min(first + band_rows, height), :width].reshape(2, -1).astype(np.float64)
        sum_n3 = np.tile(4.0 * background_3, (len(x_px), 1))
        for dy, dx in ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)):
            origin_n3, direction_n3, _ = _from_cut(*rays(x_px + dx, y_px + dy), cut_z_m)
            hits = surface.cast(origin_n3, direction_n3)
            light_h1 = (AMBIENT + (1.0 - AMBIENT) * hits.cosine_h)[:, None]
            sum_n3[hits.ray_h] += hits.linear_h3 * light_h1 - background_3
            covered += len(hits.ray_h)
        picture_hw3[first : first + band_rows] = linear_to_srgb(sum_n3 / 4.0).reshape(-1, width, 3)
    return picture_hw3, covered / (4.0 * height * width)


def _from_cut(origin_m_n3: F64, direction_n3: F64, cut_z_m: float) -> tuple[F64, F64, F64]:
    """The same rays, beginning where they come down through the cut, and how far along that is.

    So the cut is exact, straight also through triangles that cross it. It needs rays that point down: those of
    top.png do, and those of preview.png since view_elevation_rad is above half the field of view.
    """
    start_n = np.maximum((cut_z_m - origin_m_n3[:, 2]) / direction_n3[:, 2], 0.0)
    return origin_m_n3 + start_n[:, None] * direction_n3, direction_n3, start_n


def _main_direction_rad(surface: _Surface) -> float:
    """Direction in the plan, of four a quarter turn apart, that most of the walls' surface faces.

    The mean over upright triangles of exp(4 i angle), weighted by area: the four directions count as one.
    """
    upright_f = np.abs(surface.cross_f3[:, 2]) < 0.2 * 2.0 * surface.area_m2_f
    across_f = surface.cross_f3[upright_f, 0] + 1j * surface.cross_f3[upright_f, 1]
    weight_f = np.abs(across_f)
    return float(np.angle((weight_f * np.exp(4j * np.angle(across_f))).sum())) / 4.0
