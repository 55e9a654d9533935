"""From surfaces to an outline: upright lines in the plan, the cells between them, which cells are the room.

Belongs here: geometry in two dimensions with no idea of depth maps, frames or heights. Does not belong here:
where the evidence comes from (layout.py) and how lines are refined (adjustment.py).

Sources: the cells of an arrangement of wall lines labelled inside or outside by a cut of least cost, after
Oesau, Lafarge & Alliez, "Indoor scene reconstruction using feature sensitive primitive extraction and
graph-cut", ISPRS J. 2014; the histogram of surfaces over the plan after Okorn et al., 3DPVT 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MAX_LINES = 60
"""The signs of a place to all lines are held in the bits of one integer."""


@dataclass(frozen=True, eq=False)
class Lines:
    """n upright planes seen from above: normal_n2 @ x = offset_m_n, the normal towards the free side."""

    angle_rad_n: F64
    """Of the normal, from the world's x."""
    offset_m_n: F64

    def __len__(self) -> int:
        return len(self.offset_m_n)

    @property
    def normal_n2(self) -> F64:
        return np.stack((np.cos(self.angle_rad_n), np.sin(self.angle_rad_n)), axis=1)

    @property
    def along_n2(self) -> F64:
        """Direction of the line with its free side to the left."""
        return np.stack((np.sin(self.angle_rad_n), -np.cos(self.angle_rad_n)), axis=1)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | list[int]) -> Lines:
        return Lines(self.angle_rad_n[index], self.offset_m_n[index])

    def joined(self, other: Lines) -> Lines:
        return Lines(
            np.concatenate((self.angle_rad_n, other.angle_rad_n)), np.concatenate((self.offset_m_n, other.offset_m_n))
        )

    def crossing(self, i: int, j: int) -> F64:
        """The point (2,) where lines i and j meet."""
        normal_22 = self.normal_n2[[i, j]]
        return np.asarray(np.linalg.solve(normal_22, self.offset_m_n[[i, j]]), np.float64)


def find_lines(
    points_m_p2: F64, angle_rad_p: F64, weight_p: F64, *, band_m: float, least_weight: float
) -> tuple[Lines, F64]:
    """Lines through weighted surface points p with known normals; also the weight (n,) that each explains.

    A Hough transform in which a point votes only near its own normal; the best line is fitted to its points,
    they are taken out, and so on, until no line explains `least_weight`.
    """
    step_rad, step_m, spread = np.radians(1.0), 0.5 * band_m, 8
    turns = round(2 * np.pi / step_rad)
    reach = int(np.ceil(np.linalg.norm(points_m_p2, axis=1).max(initial=0.0) / step_m)) + 2
    bin_p = np.rint(angle_rad_p / step_rad).astype(int)
    table = np.stack((np.cos(np.arange(turns) * step_rad), np.sin(np.arange(turns) * step_rad)), axis=1)
    votes_k = []
    for shift in range(-spread, spread + 1):
        angle_k = (bin_p + shift) % turns
        offset_k = np.floor((points_m_p2 * table[angle_k]).sum(1) / step_m).astype(int) + reach
        votes_k.append(angle_k * (2 * reach) + offset_k)
    alive_p = np.ones(len(weight_p), np.bool_)
    found: list[tuple[float, float, float]] = []
    fade_k = np.cos(np.arange(-spread, spread + 1) / (spread + 1) * np.pi / 2)
    votes = np.zeros(turns * 2 * reach)
    for vote_p, fade in zip(votes_k, fade_k, strict=True):
        votes += fade * np.bincount(vote_p, weight_p, minlength=len(votes))
    while len(found) < 2 * MAX_LINES:
        pairs = votes.reshape(turns, -1)
        pairs = pairs[:, :-1] + pairs[:, 1:]  # a line may lie on the border of two bins
        best = np.unravel_index(int(np.argmax(pairs)), pairs.shape)
        if pairs[best] < 0.5 * least_weight:
            break
        angle, offset = best[0] * step_rad, (best[1] + 1 - reach) * step_m
        mine_p = alive_p
        for _ in range(4):
            normal = np.array([np.cos(angle), np.sin(angle)])
            turned_p = np.abs(_wrapped(angle_rad_p - angle))
            mine_p = alive_p & (turned_p < np.radians(20)) & (np.abs(points_m_p2 @ normal - offset) < band_m)
            if weight_p[mine_p].sum() < 1e-9:
                break
            angle, offset = _fit(points_m_p2[mine_p], weight_p[mine_p], angle)
        weight = float(weight_p[mine_p].sum())
        if weight <= 1e-9:  # votes of points that are not on one line
            near = pairs[best]
            votes.reshape(turns, -1)[best[0], best[1] : best[1] + 2] -= near
            continue
        if weight >= least_weight:
            found.append((float(angle), float(offset), weight))
        alive_p &= ~mine_p
        for vote_p, fade in zip(votes_k, fade_k, strict=True):
            votes -= fade * np.bincount(vote_p[mine_p], weight_p[mine_p], minlength=len(votes))
    table_n3 = np.array(found, np.float64).reshape(-1, 3)
    return Lines(table_n3[:, 0], table_n3[:, 1]), table_n3[:, 2]


def _fit(points_m_k2: F64, weight_k: F64, angle_rad: float) -> tuple[float, float]:
    """Least squares line: angle of its normal (the one nearer to what it was) and offset."""
    mean = np.average(points_m_k2, axis=0, weights=weight_k)
    rest = points_m_k2 - mean
    _, axes = np.linalg.eigh((rest * weight_k[:, None]).T @ rest)
    normal = axes[:, 0]
    if normal @ (np.cos(angle_rad), np.sin(angle_rad)) < 0:
        normal = -normal
    return float(np.arctan2(normal[1], normal[0])), float(normal @ mean)


def _wrapped(angle_rad: F64) -> F64:
    """To -pi .. pi."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi


@dataclass(frozen=True, eq=False)
class Grid:
    """A raster over the plan: pixel (row, column) has its centre at origin_2 + cell_m * (column, row)."""

    origin_2: F64
    cell_m: float
    shape: tuple[int, int]

    @classmethod
    def around(cls, points_m_p2: F64, margin_m: float, cell_m: float, most_cells: int) -> Grid:
        low, high = points_m_p2.min(axis=0) - margin_m, points_m_p2.max(axis=0) + margin_m
        cell_m = max(cell_m, float((high - low).max()) / most_cells)
        columns, rows = (int(n) for n in np.ceil((high - low) / cell_m) + 1)
        return cls(low, cell_m, (rows, columns))

    def pixel(self, points_m_p2: F64) -> tuple[I64, I64]:
        """Rows and columns, kept inside."""
        column, row = np.rint((points_m_p2 - self.origin_2) / self.cell_m).astype(np.int64).T
        return np.clip(row, 0, self.shape[0] - 1), np.clip(column, 0, self.shape[1] - 1)

    def centres_m_yx2(self) -> F64:
        row, column = np.mgrid[: self.shape[0], : self.shape[1]]
        return self.origin_2 + self.cell_m * np.stack((column, row), axis=-1)

    def place(self, row_column_k2: F64) -> F64:
        return self.origin_2 + self.cell_m * row_column_k2[:, ::-1]


@dataclass(frozen=True, eq=False)
class Support:
    """Which parts of each line have a surface: share_nk of bin k, which starts at start_m + k * step_m along."""

    start_m: float
    step_m: float
    share_nk: F64

    def at(self, line_e: I64, along_m_e: F64) -> F64:
        k = np.floor((along_m_e - self.start_m) / self.step_m).astype(int)
        inside = (k >= 0) & (k < self.share_nk.shape[1])
        return np.where(inside, self.share_nk[line_e, np.clip(k, 0, self.share_nk.shape[1] - 1)], 0.0)


def inside_by_cut(
    grid: Grid,
    free_yx: NDArray[np.bool_],
    lines: Lines,
    support: Support,
    *,
    unseen_m2: float,
    bare_m: float,
    hidden_m: float,
    covered_m: float,
) -> tuple[NDArray[np.bool_], I64]:
    """The room (y, x) as a union of the lines' cells, and the cell code (y, x) of each pixel.

    Least cost, in square metres: one outside that somebody saw through costs 1, one inside that nobody saw through
    `unseen_m2`; a metre of outline costs `covered_m` where a surface stands there facing the room, `bare_m` where
    none does, and `hidden_m` where none was seen because nobody saw the place before it.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    centres = grid.centres_m_yx2()
    code_yx = np.zeros(grid.shape, np.int64)
    for bit, (normal, offset) in enumerate(zip(lines.normal_n2, lines.offset_m_n, strict=True)):
        code_yx |= (centres @ normal > offset).astype(np.int64) << bit
    codes, cell_flat = np.unique(code_yx, return_inverse=True)
    cell_yx = cell_flat.reshape(grid.shape)
    cells, area = len(codes), grid.cell_m**2
    free_m2_c = area * np.bincount(cell_yx.ravel(), free_yx.ravel().astype(float), minlength=cells)
    unseen_m2_c = area * np.bincount(cell_yx.ravel(), minlength=cells) - free_m2_c
    rim = np.unique(np.concatenate((cell_yx[[0, -1]].ravel(), cell_yx[:, [0, -1]].ravel())))
    unseen_m2_c[rim] += 1e3  # the raster's rim is outside

    source, sink = cells, cells + 1
    tails, heads, costs = [np.full(cells, source), np.arange(cells)], [np.arange(cells), np.full(cells, sink)], []
    costs += [free_m2_c, unseen_m2 * unseen_m2_c]  # cut from the source: outside; cut from the sink: inside
    normal_n2, along_n2 = lines.normal_n2, lines.along_n2
    for axis in (0, 1):
        a, b = (code_yx[:-1], code_yx[1:]) if axis == 0 else (code_yx[:, :-1], code_yx[:, 1:])
        differs = a != b
        line = lowest_bit(a[differs] ^ b[differs])
        first = np.argwhere(differs).astype(np.float64)
        first[:, axis] += 0.5
        middle = grid.place(first)
        length = grid.cell_m / np.abs(normal_n2[line]).sum(axis=1)
        share = support.at(line, (middle * along_n2[line]).sum(axis=1))
        free_a, free_b = (free_yx[:-1], free_yx[1:]) if axis == 0 else (free_yx[:, :-1], free_yx[:, 1:])
        bare_a, bare_b = (length * np.where(each[differs], bare_m, hidden_m) for each in (free_a, free_b))
        a_is_free_side = (a[differs] >> line) & 1 == 1
        cell_a, cell_b = (cell_yx[:-1], cell_yx[1:]) if axis == 0 else (cell_yx[:, :-1], cell_yx[:, 1:])
        tails += [cell_a[differs], cell_b[differs]]
        heads += [cell_b[differs], cell_a[differs]]
        # inside at the tail, outside at the head: covered only where the surface faces the tail
        costs += [
            np.where(a_is_free_side, share * length * covered_m + (1 - share) * bare_a, bare_a),
            np.where(a_is_free_side, bare_b, share * length * covered_m + (1 - share) * bare_b),
        ]
    whole = 1e5  # csgraph counts in integers: 0.1 square centimetres
    graph = coo_matrix(
        (np.concatenate(costs), (np.concatenate(tails), np.concatenate(heads))), shape=(cells + 2, cells + 2)
    ).tocsr()
    graph.data = np.rint(graph.data * whole)
    graph = graph.astype(np.int32)
    rest = graph - maximum_flow(graph, source, sink).flow
    rest.data = np.maximum(rest.data, 0)
    rest.eliminate_zeros()
    reached = breadth_first_order(rest, source, return_predecessors=False)
    is_inside_c = np.zeros(cells + 2, np.bool_)
    is_inside_c[reached] = True
    return is_inside_c[cell_yx], code_yx


def lowest_bit(number_e: I64) -> I64:
    return np.log2((number_e & -number_e).astype(np.float64)).astype(np.int64)


def outline_of(grid: Grid, inside_yx: NDArray[np.bool_], code_yx: I64, least_m: float, lines: Lines) -> list[int]:
    """Lines of the outline in order, counter-clockwise, of one region without holes; stretches below `least_m` go.

    Where dropping a stretch leaves two nearly parallel neighbours, which never meet properly, the weaker
    of them goes as well or both become one.
    """
    from skimage.measure import find_contours

    contours = find_contours(np.pad(inside_yx, 1).astype(float), 0.5)
    contour = max(contours, key=len)[:-1] - 1.0
    low, high = np.floor(contour + 1e-6).astype(int), np.ceil(contour - 1e-6).astype(int)
    low, high = (np.clip(each, 0, np.array(grid.shape) - 1) for each in (low, high))
    differs = code_yx[low[:, 0], low[:, 1]] ^ code_yx[high[:, 0], high[:, 1]]
    keep = differs != 0
    line_e = lowest_bit(differs[keep])
    place = grid.place(contour[keep])
    if _signed_area(place) < 0:
        line_e, place = line_e[::-1], place[::-1]
    weight_e = grid.cell_m / np.abs(lines.normal_n2[line_e]).sum(axis=1)
    runs: list[list[float]] = []
    for line, weight in zip(line_e, weight_e, strict=True):
        if runs and runs[-1][0] == line:
            runs[-1][1] += weight
        else:
            runs.append([float(line), float(weight)])
    return [int(line) for line, _ in _without_short(runs, least_m, lines)]


def _without_short(runs: list[list[float]], least_m: float, lines: Lines) -> list[list[float]]:
    def joined(runs: list[list[float]]) -> list[list[float]]:
        result: list[list[float]] = []
        for line, length in runs:
            if result and result[-1][0] == line:
                result[-1][1] += length
            else:
                result.append([line, length])
        if len(result) > 1 and result[0][0] == result[-1][0]:
            result[0][1] += result.pop()[1]
        return result

    runs = joined(runs)
    while len(runs) > 3:
        shortest = min(range(len(runs)), key=lambda i: runs[i][1])
        if runs[shortest][1] < least_m:
            del runs[shortest]
            runs = joined(runs)
            continue
        flat = [
            i
            for i in range(len(runs))
            if abs(
                np.sin(lines.angle_rad_n[int(runs[i][0])] - lines.angle_rad_n[int(runs[(i + 1) % len(runs)][0])])
            ) < np.sin(np.radians(12))
        ]  # fmt: skip
        if not flat:
            break
        i = flat[0]
        j = (i + 1) % len(runs)
        stronger, weaker = (i, j) if runs[i][1] >= runs[j][1] else (j, i)
        runs[stronger][1] += runs[weaker][1]
        del runs[weaker]
        runs = joined(runs)
    return runs


def numbered(mask_yx: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Connected parts: 0 outside, then 1 to count; and the count."""
    from scipy.ndimage import label

    parts_yx = np.zeros(mask_yx.shape, np.int32)
    count = label(mask_yx, output=parts_yx)
    return parts_yx, int(count)  # pyright: ignore[reportArgumentType]


def _signed_area(corners_m_n2: F64) -> float:
    x, y = corners_m_n2.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def area_m2(corners_m_n2: F64) -> float:
    """Of a polygon, positive counter-clockwise (the shoelace formula)."""
    return _signed_area(corners_m_n2)
