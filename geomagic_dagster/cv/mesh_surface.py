"""The surface in a volume: its zero crossing as triangles, cleaned, decimated, with colours and normals.

Belongs here: extraction, cleaning and decimation. Does not belong here: the volume (tsdf.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.stage import progress
from geomagic_dagster.cv.tsdf import BLOCK, F32, F64, GREY, I32, I64, QUANTA, BlockVolume
from geomagic_dagster.cv.types import Mesh

CHUNK = 4  # blocks along the edge of what is extracted at a time


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in units of voxels, before they become a Mesh."""

    vertices_voxels_v3: F64
    rgb_v3: NDArray[np.uint8]
    triangles_f3: I64
    voxel_m: float

    def areas_m2_f(self) -> F64:
        return np.linalg.norm(self.crosses_m2_f3(), axis=1) / 2

    def crosses_m2_f3(self) -> F64:
        """Face normals with twice the area as length."""
        a, b, c = (self.vertices_voxels_v3[self.triangles_f3[:, i]] * self.voxel_m for i in range(3))
        return np.cross(b - a, c - a)

    def keep(self, is_kept_f: NDArray[np.bool_]) -> Surface:
        """Only these triangles, and the vertices they use, in the order they were in."""
        triangles_f3 = self.triangles_f3[is_kept_f]
        is_used_v = np.zeros(len(self.vertices_voxels_v3), np.bool_)
        is_used_v[triangles_f3] = True
        renumbered_v = np.cumsum(is_used_v) - 1
        return Surface(
            self.vertices_voxels_v3[is_used_v], self.rgb_v3[is_used_v], renumbered_v[triangles_f3], self.voxel_m
        )


def extract(volume: BlockVolume, seen_weight: int) -> Surface:
    """The zero surface where all eight corners of a cell were seen (marching cubes, Lorensen & Cline 1987, in
    Lewiner's variant of 2003), counter-clockwise seen from the free side.

    Chunks share a layer of voxels with their neighbours. A vertex on that layer comes from the same two voxels
    in each chunk, at the same place to the bit; such vertices are merged, so there are no seams.
    """
    from skimage.measure import marching_cubes

    vertices, colours, triangles, is_border = [], [], [], []
    offset = 0
    for corner_3, sdf, mask, sums in _chunks(volume, seen_weight):
        local_v3, triangles_f3, _, _ = marching_cubes(sdf, 0.0, mask=mask, gradient_direction="descent")
        vertices.append(local_v3.astype(np.float64) + corner_3)
        colours.append(np.zeros((len(local_v3), 4), np.uint8) if sums is None else _colours_at(local_v3, sums))
        triangles.append(triangles_f3.astype(np.int64) + offset)
        is_border.append(((local_v3 == 0) | (local_v3 == CHUNK * BLOCK)).any(1))
        offset += len(local_v3)
    if not vertices:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.int64), volume.voxel_m)
    vertices_v3 = np.vstack(vertices)
    same_as_v = _merge_exactly(vertices_v3, np.concatenate(is_border))
    rgb_v3 = _fill_colours(vertices_v3, np.vstack(colours))
    merged = Surface(vertices_v3, rgb_v3, same_as_v[np.vstack(triangles)], volume.voxel_m)
    return merged.keep(np.ones(len(merged.triangles_f3), np.bool_))


def _chunks(volume: BlockVolume, seen_weight: int) -> Iterator[tuple[I64, F32, NDArray[np.bool_], I32 | None]]:
    """For each chunk that holds a surface: its first voxel (3,), the TSDF (s, s, s), the cells to march (s, s, s)
    and the colour sums (s, s, s, 4); s is one more than the chunk's voxels, for the shared layer."""
    sdf_weight_n2v, rgb_weight_n4v = volume.sdf_weight_n2v.cpu().numpy(), volume.rgb_weight_n4v.cpu().numpy()
    size = CHUNK * BLOCK + 1
    steps = np.arange(CHUNK + 1)
    neighbours_c3 = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)

    def gathered(sums_ncv: I32, slots: I64) -> I32:
        """Sums (s, s, s, c) of the chunk and its shared layer; 0 where there is no block."""
        blocks = np.where((slots >= 0)[:, None, None], sums_ncv[slots], 0)
        cube = blocks.reshape(*[CHUNK + 1] * 3, -1, BLOCK, BLOCK, BLOCK).transpose(0, 4, 1, 5, 2, 6, 3)
        return cube.reshape(*[(CHUNK + 1) * BLOCK] * 3, -1)[:size, :size, :size]

    for chunk_3 in progress(np.unique(volume.coords_n3() // CHUNK, axis=0), "chunks meshed"):
        slots = volume.find(chunk_3 * CHUNK + neighbours_c3)
        sums, weights = np.moveaxis(gathered(sdf_weight_n2v, slots).astype(np.int64), -1, 0)
        is_seen = weights >= seen_weight
        # Odd numerators are never zero; a vertex then lies on one edge alone and never on a voxel, where
        # several would fall together.
        sdf = ((2 * sums + 1) / (2 * QUANTA * np.maximum(weights, 1))).astype(np.float32)
        sdf = np.copysign(np.maximum(np.abs(sdf), np.float32(1 / QUANTA)), sdf)
        mask = _cells_to_march(sdf, is_seen)
        if mask.any():
            colours = gathered(rgb_weight_n4v, slots) if volume.has_colour else None
            yield chunk_3.astype(np.int64) * (CHUNK * BLOCK), sdf, mask, colours


def _cells_to_march(sdf: F32, is_seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells whose corners were all seen and differ in sign. A cell is named by its last corner, as
    skimage reads its mask."""
    lowest = np.where(is_seen, sdf, np.float32(np.nan))
    highest = lowest
    for axis in range(3):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        lowest = np.minimum(lowest[tuple(low)], lowest[tuple(high)])  # NaN stays NaN
        highest = np.maximum(highest[tuple(low)], highest[tuple(high)])
    mask = np.zeros(sdf.shape, np.bool_)
    mask[1:, 1:, 1:] = (lowest < 0) & (highest > 0)
    return mask


def _colours_at(local_v3: F32, rgb_sums: I32) -> NDArray[np.uint8]:
    """Colour (v, 3) between the two voxels of the edge that a vertex lies on, and whether it has one, (v, 4)."""
    low_v3 = np.floor(local_v3).astype(np.int64)
    high_v3 = np.ceil(local_v3).astype(np.int64)
    share_high_v1 = (local_v3 - low_v3).max(1, keepdims=True).astype(np.float64)
    total_v4 = np.zeros((len(local_v3), 4))
    for corner_v3, share_v1 in ((low_v3, 1 - share_high_v1), (high_v3, share_high_v1)):
        sums_v4 = rgb_sums[tuple(corner_v3.T)].astype(np.float64)
        total_v4 += share_v1 * sums_v4 / np.maximum(sums_v4[:, 3:], 1)
    return np.rint(total_v4 / np.maximum(total_v4[:, 3:], 1e-12)).astype(np.uint8)


def _fill_colours(vertices_v3: F64, rgb_v4: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour (v, 3); a vertex without one (behind a silhouette no surface was near) takes that of the nearest."""
    from scipy.spatial import KDTree

    rgb_v3, has_colour_v = rgb_v4[:, :3].copy(), rgb_v4[:, 3] > 0
    if not has_colour_v.any():
        return np.full_like(rgb_v3, GREY)
    nearest = KDTree(vertices_v3[has_colour_v]).query(vertices_v3[~has_colour_v])[1]
    rgb_v3[~has_colour_v] = rgb_v3[has_colour_v][nearest]
    return rgb_v3


def _merge_exactly(vertices_v3: F64, is_border_v: NDArray[np.bool_]) -> I64:
    """For each vertex the first one at the same place; only those on a chunk's border can have another."""
    same_as_v = np.arange(len(vertices_v3))
    border = np.flatnonzero(is_border_v)
    _, first, inverse = np.unique(vertices_v3[border], axis=0, return_index=True, return_inverse=True)
    same_as_v[border] = border[first][inverse.reshape(-1)]
    return same_as_v


# --- clean, decimate, finish ----------------------------------------------------------------------------------


def without_small_pieces(surface: Surface, min_piece_m2: float) -> Surface:
    """Removes connected pieces of less area: floaters, and specks behind a door."""
    piece_v = piece_of_vertices(len(surface.vertices_voxels_v3), surface.triangles_f3)
    piece_f = piece_v[surface.triangles_f3[:, 0]]
    area_m2 = np.bincount(piece_f, weights=surface.areas_m2_f())
    return surface.keep(area_m2[piece_f] >= min_piece_m2)


def piece_of_vertices(count: int, triangles_f3: NDArray[np.integer]) -> I32:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges_e2 = np.vstack((triangles_f3[:, :2], triangles_f3[:, 1:]))
    graph = coo_array((np.ones(len(edges_e2), np.bool_), (edges_e2[:, 0], edges_e2[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def decimated(surface: Surface, triangles: int) -> Surface:
    """At most so many triangles, by quadric error (Garland & Heckbert 1997); colours of the nearest old vertex.

    The borders of what was seen stay as long as they leave half of the budget to the rest: a scan has many, and
    collapsing them eats centimetres of it.
    """
    import fast_simplification
    from scipy.spatial import KDTree

    points_m, faces = surface.vertices_voxels_v3 * surface.voxel_m, surface.triangles_f3.astype(np.int32)
    borders = int((edge_uses(faces)[1] == 1).sum())
    for preserve_border in (True, False) if 2 * borders <= triangles else (False,):
        if len(faces) > triangles:
            simplified = fast_simplification.simplify(
                points_m, faces, target_count=triangles, preserve_border=preserve_border
            )
            points_m, faces = simplified[0], simplified[1].astype(np.int32)
    if len(faces) == len(surface.triangles_f3):
        return surface
    points_voxels = points_m / surface.voxel_m
    nearest = KDTree(surface.vertices_voxels_v3).query(points_voxels)[1]
    return _without_folds(Surface(points_voxels, surface.rgb_v3[nearest], faces.astype(np.int64), surface.voxel_m))


def _without_folds(surface: Surface) -> Surface:
    """What collapsing edges leaves behind, removed: triangles without area, or folded onto each other; and where
    more than two share an edge, all but the largest two."""
    area_m2_f = surface.areas_m2_f()
    _, same_f, copies = np.unique(
        np.sort(surface.triangles_f3, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    is_kept_f = (area_m2_f > 1e-12) & (copies[same_f.reshape(-1)] == 1)
    while True:
        kept = np.flatnonzero(is_kept_f)
        edge_e, uses = edge_uses(surface.triangles_f3[kept])
        face_e = np.tile(kept, 3)
        order = np.lexsort((face_e, -area_m2_f[face_e], edge_e))  # by edge; the largest first, then by number
        rank_e = np.arange(len(order)) - np.repeat(np.cumsum(uses) - uses, uses)
        if not (rank_e >= 2).any():
            return surface.keep(is_kept_f)
        is_kept_f[face_e[order[rank_e >= 2]]] = False


def edge_uses(triangles_f3: NDArray[np.integer]) -> tuple[I64, I64]:
    """A number for each triangle's edges, (3 f,), first edges first; and how many triangles share each number."""
    low_f, high_f = (
        np.concatenate(
            [reduce(triangles_f3[:, a], triangles_f3[:, b]).astype(np.int64) for a, b in ((0, 1), (1, 2), (2, 0))]
        )
        for reduce in (np.minimum, np.maximum)
    )
    _, edge_e, uses = np.unique((low_f << 32) | high_f, return_inverse=True, return_counts=True)
    return edge_e, uses


def finish(surface: Surface) -> Mesh:
    """Metres, and a normal for each vertex: the mean of its triangles', weighted by area."""
    crosses_f3 = surface.crosses_m2_f3()
    count = len(surface.vertices_voxels_v3)
    normals_v3 = np.stack(
        [
            sum(np.bincount(surface.triangles_f3[:, i], weights=crosses_f3[:, axis], minlength=count) for i in range(3))
            for axis in range(3)
        ],
        axis=-1,
    )
    length_v = np.linalg.norm(normals_v3, axis=1)
    cancelled_v = np.flatnonzero(length_v < 1e-12)  # triangles back to back: any one of them
    if len(cancelled_v):
        one_face_v = np.zeros(count, np.int64)
        one_face_v[surface.triangles_f3] = np.arange(len(crosses_f3))[:, None]
        normals_v3[cancelled_v] = crosses_f3[one_face_v[cancelled_v]]
        length_v = np.linalg.norm(normals_v3, axis=1)
    normals_v3 /= length_v[:, None]
    return Mesh(
        vertices_world_m_v3=(surface.vertices_voxels_v3 * surface.voxel_m).astype(np.float32),
        triangles_f3=surface.triangles_f3.astype(np.int32),
        rgb_v3=surface.rgb_v3,
        normals_world_v3=normals_v3.astype(np.float32),
        voxel_m=surface.voxel_m,
    )
