"""The room's surface as one mesh: depth maps fused into a sparse TSDF, its zero surface extracted and cleaned.

Frames in any order, on any number of threads, on any device give the same bytes (tsdf.py says how).

Belongs here: the way from frames to the finished mesh. Does not belong here: the volume (tsdf.py), extraction,
cleaning and decimation (mesh_surface.py), what to trust in a depth map (depth.py), files and pictures (package.py).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from geomagic_dagster.cv.mesh_surface import (
    decimated,
    edge_uses,
    extract,
    finish,
    piece_of_vertices,
    without_small_pieces,
)
from geomagic_dagster.cv.stage import Field, Params, ScanRejected, minutes, progress, stage
from geomagic_dagster.cv.tsdf import MAX_FRAMES, MEMORY_GB, BlockVolume, choose_kernel, look
from geomagic_dagster.cv.types import DepthMaps, Frames, Mesh, Poses


class MeshParams(Params):
    voxel_m: float = Field(0.02, ge=0.002, le=0.2, description="Edge of a voxel; details smaller than two are lost.")
    truncation_voxels: float = Field(
        4.0, ge=2, le=16, description="How far around a surface distances are averaged: above the depth noise."
    )
    seen_weight: int = Field(
        4, ge=1, description="Voxels below this count as never seen. A sharp view from z metres weighs 128 / z^2."
    )
    min_piece_m2: float = Field(0.05, ge=0, description="Remove pieces that hang together but have less area.")
    triangles: int = Field(100_000, ge=100, description="Budget; 100,000 is what AR viewers on older phones bear.")
    kernel: Literal["auto", "torch", "numba"] = Field(
        "auto", description="Who adds up; the sums are the same. auto: numba on a CPU, torch on a GPU."
    )


@stage(
    version="1",
    timeout=minutes(5),
    retries=2,
    gpu=True,
    memory_gb=MEMORY_GB,
    expects={"triangles": (1_000, 150_000), "area_m2": (2.0, 2_000.0), "extent_max_m": (1.0, 60.0)},
)
def mesh(frames: Frames, poses: Poses, depth: DepthMaps, params: MeshParams = MeshParams()) -> Mesh:
    """Fuses all frames and returns the cleaned surface with colours, within the triangle budget.

    Raises: ScanRejected where there is no depth, nothing was seen well enough, or depth is in a wrong unit.
    """
    volume = fuse(frames, poses, depth, params)
    surface = without_small_pieces(extract(volume, params.seen_weight), params.min_piece_m2)
    surface = without_small_pieces(decimated(surface, params.triangles), params.min_piece_m2)
    if len(surface.triangles_f3) == 0:
        raise ScanRejected(
            "mesh",
            expected=f"a surface of at least {params.min_piece_m2} m² that is seen well enough to fuse",
            received=f"none after {len(poses.used())} frames touched {len(volume)} blocks of voxels",
            do="Walk slowly, 1 to 3 m from the walls, and see every surface more than once; "
            "`geomagic scan check` tells whether poses and depth fit each other.",
        )
    return finish(surface)


def fuse(frames: Frames, poses: Poses, depth: DepthMaps, params: MeshParams = MeshParams()) -> BlockVolume:
    """The TSDF of all used frames. A frame changes the blocks it touches itself, whatever others touched:
    so the sums do not depend on the order of frames."""
    kernel = choose_kernel(params.kernel)
    volume = BlockVolume(params.voxel_m, params.truncation_voxels, frames.recording.rgb is not None, kernel.device)
    used = poses.used()
    if len(used) > MAX_FRAMES:
        raise ScanRejected(
            "mesh",
            expected=f"at most {MAX_FRAMES:,} frames, which the integer sums are made for",
            received=f"{len(used):,}",
            do="Let the frames stage keep fewer, or scan in several parts.",
        )
    for i in progress(used, "frames fused"):
        view = look(frames, poses, depth, i)
        if view is None:
            continue
        coords_m3 = kernel.touch(view, volume)
        slot_m = volume.find_or_add(coords_m3, view.place)
        kernel.integrate(view, volume, coords_m3, slot_m)
    if len(volume) == 0:
        raise ScanRejected(
            "mesh",
            expected="depth in at least one frame whose pose is used",
            received=f"none in {len(used)} used frames of {len(frames.recording)}",
            do="Scan with a phone that has a depth sensor, a few metres from the walls.",
        )
    return volume


def measure_mesh(mesh: Mesh) -> dict[str, float]:
    a, b, c = (mesh.vertices_world_m_v3[mesh.triangles_f3[:, i]].astype(np.float64) for i in range(3))
    uses = edge_uses(mesh.triangles_f3)[1]
    extent_m_3 = np.ptp(mesh.vertices_world_m_v3, axis=0)
    return {
        "vertices": len(mesh.vertices_world_m_v3),
        "triangles": len(mesh.triangles_f3),
        "area_m2": float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2),
        "pieces": int(piece_of_vertices(len(mesh.vertices_world_m_v3), mesh.triangles_f3).max()) + 1,
        "open_edges": int((uses == 1).sum()),
        "non_manifold_edges": int((uses > 2).sum()),
        "extent_max_m": float(extent_m_3.max()),
        "height_m": float(extent_m_3[2]),
    }
