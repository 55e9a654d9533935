"""A scan through all stages without Dagster, and points on the mesh that comes out.

Belongs here: what several tests of the whole journey need. Does not belong here: what they expect of it.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.cv.types import Mesh, Scan
from geomagic_dagster.guardrails.execution import run_stage


def journey(scan: Scan) -> dict[str, Any]:
    """Every stage with its default settings; the result of each by its name."""
    results: dict[str, Any] = {"scan": scan}
    for stage in find_stages():
        inputs = {name: results[name] for name in stage.inputs}
        results[stage.name] = run_stage(stage, inputs, stage.params(), logging.getLogger("journey")).result
    return results


def points_on(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 3) points evenly over the mesh's area, and the normals (count, 3) of their triangles."""
    a, b, c = (mesh.vertices_world_m_v3[mesh.triangles_f3[:, i]].astype(np.float64) for i in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    rng = np.random.default_rng(0)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return (1 - u) * a[face] + u * (1 - v) * b[face] + u * v * c[face], cross[face] / area[face, None]
