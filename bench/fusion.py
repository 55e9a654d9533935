"""Fusion in frames/s next to Open3D's VoxelBlockGrid on the CPU: `python -m bench.fusion [--scan PATH]`.

The same decoded frames, poses, voxel size, truncation, block size and threads, with colour, in one process,
by turns; then extraction, the distance between the two surfaces, and the memory of each in a process of its
own. Open3D is an optional extra: without it only our own numbers are printed.

Belongs here: the comparison. Does not belong here: whether a surface is right (tests/cv/test_mesh.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from geomagic_dagster.cv.camera import invert_pose
from geomagic_dagster.cv.mesh import MeshParams, fuse
from geomagic_dagster.cv.mesh_surface import extract, finish
from geomagic_dagster.cv.stage import use_compute_device
from geomagic_dagster.cv.tsdf import BLOCK, BlockVolume
from geomagic_dagster.cv.types import DepthMaps, Frames, Mesh, Poses, Recording, Scan
from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room
from geomagic_dagster.scans.reader import read_scan

FAR_M = 6.0
REPEATS = 5
PARAMS = MeshParams()


@dataclass(frozen=True)
class Input:
    """Decoded frames: what both sides are given, so that neither is timed reading files."""

    frames: Frames
    poses: Poses
    depth: DepthMaps

    def first(self, count: int) -> Input:
        used_b = self.poses.is_used_b.copy()
        used_b[count:] = False
        return replace(self, poses=replace(self.poses, is_used_b=used_b))


def read_input(path: Path | None) -> Input:
    """A scan, or without a path the made-up room."""
    scan: Scan = read_scan(path) if path else scan_room(make_room(1), PHONE).scan
    recording, poses_b44 = scan.recording, scan.scan_T_cam_b44
    if poses_b44 is None or recording.rgb is None or recording.depth is None or recording.K_depth_b33 is None:
        sys.exit(f"bench.fusion: expected a scan with poses, colour and depth; got {path} without. Name another.")
    depth_m_bhw = np.stack([recording.depth_m_hw(i) for i in range(len(recording))])
    depth_m_bhw[depth_m_bhw > FAR_M] = 0
    rgb_b = [recording.rgb_hw3(i) for i in range(len(recording))]
    if rgb_b[0].shape[:2] != depth_m_bhw.shape[1:]:
        sys.exit(f"bench.fusion: Open3D wants colour and depth of one size; got {path} with two. Name another scan.")
    count = len(recording)
    decoded = Recording(
        rgb=cast(Any, rgb_b),
        depth=None,
        depth_confidence=None,
        timestamp_s_b=recording.timestamp_s_b,
        K_rgb_b33=recording.K_rgb_b33,
        K_depth_b33=recording.K_depth_b33,
    )
    nothing_n = np.ones(count)
    return Input(
        Frames(decoded, np.arange(count), nothing_n, nothing_n, ()),
        Poses(poses_b44, np.eye(4), np.ones(count, np.bool_), nothing_n, "device", None, None, ()),
        DepthMaps(depth_m_bhw, np.where(depth_m_bhw > 0, 255, 0).astype(np.uint8), recording.K_depth_b33),
    )


class Ours:
    name = "geomagic"

    def __init__(self, data: Input) -> None:
        self.data = data

    def fuse(self) -> BlockVolume:
        return fuse(self.data.frames, self.data.poses, self.data.depth, PARAMS)

    def extract(self, volume: BlockVolume) -> tuple[np.ndarray, np.ndarray]:
        surface: Mesh = finish(extract(volume, seen_weight=1))
        return surface.vertices_world_m_v3, surface.triangles_f3


class Open3D:
    name = "open3d"

    def __init__(self, data: Input) -> None:
        import open3d as o3d  # pyright: ignore[reportMissingImports]

        self.o3d, self.device = o3d, o3d.core.Device("CPU:0")
        image = o3d.t.geometry.Image
        self.frames = [
            (
                image(np.rint(data.depth.depth_m_bhw[i] * 1000).astype(np.uint16)),
                image(np.ascontiguousarray(data.frames.recording.rgb_hw3(i))),
                o3d.core.Tensor(data.depth.K_b33[i]),
                o3d.core.Tensor(invert_pose(data.poses.world_T_cam_b44[i])),
            )
            for i in data.poses.used()
        ]

    def fuse(self) -> Any:
        float32 = self.o3d.core.float32
        grid = self.o3d.t.geometry.VoxelBlockGrid(
            attr_names=("tsdf", "weight", "color"),
            attr_dtypes=(float32, float32, float32),
            attr_channels=((1,), (1,), (3,)),
            voxel_size=PARAMS.voxel_m,
            block_resolution=BLOCK,
            block_count=20_000,
            device=self.device,
        )
        for depth, colour, K, extrinsic in self.frames:
            blocks = grid.compute_unique_block_coordinates(depth, K, extrinsic, 1000.0, FAR_M, PARAMS.truncation_voxels)
            grid.integrate(blocks, depth, colour, K, K, extrinsic, 1000.0, FAR_M, PARAMS.truncation_voxels)
        return grid

    def extract(self, grid: Any) -> tuple[np.ndarray, np.ndarray]:
        mesh = grid.extract_triangle_mesh(weight_threshold=0.5)  # above: what one frame saw
        return mesh.vertex.positions.numpy(), mesh.triangle.indices.numpy()


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def distances_m(from_mesh: tuple[np.ndarray, np.ndarray], to_mesh: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """From the centres of one mesh's triangles to the other mesh."""
    import open3d as o3d  # pyright: ignore[reportMissingImports]

    scene = o3d.t.geometry.RaycastingScene()
    vertices, triangles = to_mesh
    scene.add_triangles(o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(triangles.astype(np.uint32)))
    centres = from_mesh[0][from_mesh[1]].mean(axis=1).astype(np.float32)
    return scene.compute_distance(o3d.core.Tensor(centres)).numpy()


def memory_mb(engine: str, path: Path | None) -> float:
    """What fusing and extracting all frames adds to the peak memory of a process of its own."""
    command = [sys.executable, "-m", "bench.fusion", "--memory-of", engine, *(["--scan", str(path)] if path else [])]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    return json.loads(output.splitlines()[-1])


def _peak_mb() -> float:
    """Peak memory of this process; not from getrusage, whose peak a child inherits from its parent (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def report(path: Path | None = None, repeats: int = REPEATS) -> dict[str, float]:
    """Measures, prints a table as it goes, and returns its numbers."""
    use_compute_device("cpu")
    data = read_input(path)
    count = len(data.frames.recording)
    ours = Ours(data)
    engines: list[Ours | Open3D] = [ours]
    try:
        engines.append(Open3D(data))
    except (ImportError, OSError) as missing:  # OSError: a shared library of the system is not there
        print(
            f"Open3D cannot be imported ({missing}): ours alone. Install the bench extra and Debian's "
            "libusb-1.0-0, libgl1 and libegl1."
        )
    height, width = data.depth.depth_m_bhw.shape[1:]
    print(
        f"{path.name if path else 'made-up room'}: {count} frames {width}x{height}, "
        f"voxels of {PARAMS.voxel_m * 100:.0f} cm, truncation {PARAMS.truncation_voxels:.0f} voxels, "
        f"{os.cpu_count()} cores"
    )
    for engine in engines:  # compile, fill caches
        engine.extract(engine.fuse())
    fuse_s: dict[str, list[float]] = {engine.name: [] for engine in engines}
    extract_s: dict[str, list[float]] = {engine.name: [] for engine in engines}
    meshes = {}
    for _ in range(repeats):
        for engine in engines:
            seconds, volume = timed(engine.fuse)
            fuse_s[engine.name].append(seconds)
            seconds, meshes[engine.name] = timed(engine.extract, volume)
            extract_s[engine.name].append(seconds)
            del volume
    numbers: dict[str, float] = {}
    for engine in engines:
        name = engine.name
        numbers[f"{name}_frames_per_s"] = count / statistics.median(fuse_s[name])
        numbers[f"{name}_extract_s"] = statistics.median(extract_s[name])
        numbers[f"{name}_triangles"] = len(meshes[name][1])
        numbers[f"{name}_memory_mb"] = memory_mb(name, path)
    if len(engines) == 2:
        pairs = zip(fuse_s["geomagic"], fuse_s["open3d"], strict=True)
        numbers["times_open3d"] = statistics.median(open3d_s / ours_s for ours_s, open3d_s in pairs)
        for name, start, end in (("to_open3d", "geomagic", "open3d"), ("from_open3d", "open3d", "geomagic")):
            distance_mm = distances_m(meshes[start], meshes[end]) * 1000
            numbers[f"{name}_mean_mm"] = float(distance_mm.mean())
            numbers[f"{name}_95_mm"] = float(np.quantile(distance_mm, 0.95))
    for name, number in numbers.items():
        print(f"  {name:<24}{number:>12,.1f}")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scan", type=Path, help="any scan with poses, colour and depth; without one, a made-up room")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--memory-of", choices=["geomagic", "open3d"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.scan and not arguments.scan.exists():
        sys.exit(f"bench.fusion: expected a scan; got nothing at {arguments.scan}. Name another with --scan.")
    use_compute_device("cpu")
    if arguments.memory_of:
        data = read_input(arguments.scan)
        make = Ours if arguments.memory_of == "geomagic" else Open3D
        few = make(data.first(2))
        few.extract(few.fuse())  # libraries loaded, kernels compiled
        engine = make(data)
        before_mb = _peak_mb()
        engine.extract(engine.fuse())
        print(json.dumps(_peak_mb() - before_mb))
    else:
        report(arguments.scan, arguments.repeats)


if __name__ == "__main__":
    main()
