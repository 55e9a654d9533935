"""room.glb: the mesh, and beside it the room's parts as named nodes that an app reads without a second file.

Belongs here: writing glTF. Does not belong here: what the parts are (room_document.py).

Two scenes: the first, which every viewer shows, is the mesh alone (node `room`); the second, "layout and furniture",
has the nodes `layout` (floor_0, ceiling_0, wall_0, door_0, ...) and `furniture` (table_0, ...). In one scene the boxes
would hide the mesh in every plain viewer, and KHR_node_visibility, which could hide them, few viewers know.

Every node of a part has translation, rotation and scale, which are `transform` and `dimensions` of room.json: furniture
is the unit box scaled, an opening the unit square scaled; walls (their openings cut out), floor and ceiling are
polygons in metres in their own axes. All face the room and are one-sided, so that one looks in from outside. `extras`
of a node has identifier, category, dimensions, sigma and confidence as in room.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomagic_dagster.cv.pictures import srgb_to_linear
from geomagic_dagster.cv.room_document import world_to_room
from geomagic_dagster.cv.room_model import RoomDocument, Wall
from geomagic_dagster.cv.stage import StageError
from geomagic_dagster.cv.types import Mesh

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

PARTS_SCENE = "layout and furniture"
MATERIAL_RGBA = {
    "wall": (0.80, 0.80, 0.78, 0.6), "guessed wall": (0.80, 0.80, 0.78, 0.2), "floor": (0.55, 0.50, 0.45, 0.8),
    "ceiling": (0.9, 0.9, 0.9, 0.3), "door": (0.45, 0.25, 0.10, 0.6), "window": (0.25, 0.50, 0.85, 0.4),
    "opening": (0.85, 0.65, 0.30, 0.4), "furniture": (0.20, 0.45, 0.70, 0.5),
}  # fmt: skip
"""Linear light, and how much it covers."""
UNIT_SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def room_glb(mesh: Mesh, has_colour: bool, document: RoomDocument) -> bytes:
    """glTF 2.0, binary. `mesh` has normals of length 1; the same input gives the same bytes."""
    import trimesh
    from trimesh.exchange.gltf import export_glb

    meshes = trimesh.Scene()
    meshes.add_geometry(_room(mesh, has_colour), geom_name="room")
    nodes: list[dict[str, Any]] = [{"name": "room", "mesh": "room"}]
    for parent, elements in (("layout", document.surfaces()), ("furniture", document.boxes())):
        children = []
        for element in elements:
            name, geometry, scale = _geometry(element, document)
            children.append(len(nodes))
            nodes.append({"name": element.name, **_pose(element.transform, scale), **_extras(element)})
            if geometry is not None:
                nodes[-1]["mesh"] = name
                if name not in meshes.geometry:
                    meshes.add_geometry(geometry, geom_name=name)
        if children:
            nodes.append({"name": parent, "children": children})
    return export_glb(meshes, include_normals=True, tree_postprocessor=lambda tree: _finish_gltf(tree, nodes))


def triangulated(corners_n2: F64) -> I64:
    """(n - 2, 3) of a simple polygon, counter-clockwise, by cutting off ears (Meisters 1975)."""
    left, triangles = list(range(len(corners_n2))), []

    def cross(a: int, b: int, c: int) -> float:
        (ux, uy), (vx, vy) = corners_n2[b] - corners_n2[a], corners_n2[c] - corners_n2[a]
        return float(ux * vy - uy * vx)

    def is_ear(a: int, b: int, c: int) -> bool:
        others = (p for p in left if p not in (a, b, c))
        return cross(a, b, c) >= 0 and not any(
            cross(a, b, p) >= 0 and cross(b, c, p) >= 0 and cross(c, a, p) >= 0 for p in others
        )

    while len(left) > 3:
        around = [(left[i - 1], left[i], left[(i + 1) % len(left)]) for i in range(len(left))]
        ear = next((corner for corner in around if is_ear(*corner)), None)
        if ear is None:
            raise StageError(
                f"room.glb: expected an outline that does not cross itself; got {np.round(corners_n2, 3).tolist()}. "
                "This is a fault of the layout stage."
            )
        triangles.append(ear)
        left.remove(ear[1])
    return np.array([*triangles, tuple(left)], np.int64)


# --- geometry ---------------------------------------------------------------------------------------


def _geometry(element: Any, document: RoomDocument) -> tuple[str, Any, list[float]]:
    """Name of the mesh of a part, the mesh, and how the node scales it; None: a wall that is all opening."""
    kind, as_it_is = _kind(element), [1.0, 1.0, 1.0]
    if kind == "furniture":
        return "box", _unit_box(), list(element.dimensions)
    if kind in ("door", "window", "opening"):
        return kind, _flat(UNIT_SQUARE, np.array([[0, 1, 2], [0, 2, 3]]), kind), [*element.dimensions[:2], 1.0]
    if isinstance(element, Wall):
        corners_n2, triangles_f3 = _wall_with_holes(element, document)
        return element.name, _flat(corners_n2, triangles_f3, kind) if len(triangles_f3) else None, as_it_is
    corners_n2 = np.array(element.polygon_corners)[:, :2]
    return element.name, _flat(corners_n2, triangulated(corners_n2), kind), as_it_is


def _room(mesh: Mesh, has_colour: bool) -> Any:
    """The mesh as it came, in the axes of glTF.

    Vertex colours in glTF are linear light. Eight bits of that show steps in the dark (sRGB 1 to 12
    would all become 0 or 1), so they are stored in 16 bits, with an alpha of 1 to keep rows of four bytes.
    """
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    attributes: dict[str, Any] = {}
    if has_colour:
        linear_v3 = np.rint(srgb_to_linear(mesh.rgb_v3).astype(np.float64) * 65535.0).astype(np.uint16)
        attributes["_COLOR"] = np.pad(linear_v3, ((0, 0), (0, 1)), constant_values=65535)
    material = PBRMaterial(name="room", metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    return trimesh.Trimesh(
        world_to_room(mesh.vertices_world_m_v3),
        mesh.triangles_f3,
        vertex_normals=world_to_room(mesh.normals_world_v3),
        vertex_attributes=attributes,
        visual=TextureVisuals(material=material),
        process=False,
    )


def _part(vertices_v3: F64, triangles_f3: I64, normals_v3: F64, kind: str) -> Any:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        name=kind,
        baseColorFactor=[round(255 * level) for level in MATERIAL_RGBA[kind]],
        metallicFactor=0.0,
        roughnessFactor=1.0,
        alphaMode="BLEND",
    )
    visual = TextureVisuals(material=material)
    return trimesh.Trimesh(vertices_v3, triangles_f3, vertex_normals=normals_v3, visual=visual, process=False)


def _flat(corners_n2: F64, triangles_f3: I64, kind: str) -> Any:
    """A part in the plane z = 0, facing z."""
    flat_n3 = np.pad(corners_n2, ((0, 0), (0, 1)))
    return _part(flat_n3, triangles_f3, np.tile([0.0, 0.0, 1.0], (len(flat_n3), 1)), kind)


def _unit_box() -> Any:
    import trimesh

    box = trimesh.creation.box(extents=(1, 1, 1))
    vertices_v3 = box.vertices[box.faces].reshape(-1, 3)
    return _part(vertices_v3, np.arange(36).reshape(12, 3), np.repeat(box.face_normals, 3, axis=0), "furniture")


def _wall_with_holes(wall: Wall, document: RoomDocument) -> tuple[F64, I64]:
    """Corners and triangles of a wall in its own axes: the cells of a grid along all edges that are in no opening."""
    half_2 = 0.5 * np.array(wall.dimensions[:2])
    holes = []
    for each in (*document.doors, *document.windows, *document.openings):
        if each.parent_identifier == wall.identifier:
            middle_2 = _in_own_axes(wall.transform, each.transform[12:15])[:2]
            reach_2 = 0.5 * np.array(each.dimensions[:2])
            holes.append(np.clip((middle_2 - reach_2, middle_2 + reach_2), -half_2, half_2))
    xs, ys = (
        np.unique(np.round([-half_2[axis], half_2[axis], *(edge for hole in holes for edge in hole[:, axis])], 6))
        for axis in (0, 1)
    )
    corners_n2 = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    triangles = []
    for row in range(len(ys) - 1):
        for column in range(len(xs) - 1):
            middle_2 = np.array([xs[column : column + 2].mean(), ys[row : row + 2].mean()])
            if not any((hole[0] < middle_2).all() and (middle_2 < hole[1]).all() for hole in holes):
                a = row * len(xs) + column
                triangles += [(a, a + 1, a + len(xs) + 1), (a, a + len(xs) + 1, a + len(xs))]
    used, index = np.unique(np.array(triangles, np.int64).reshape(-1, 3), return_inverse=True)
    return corners_n2[used].astype(np.float64), index.reshape(-1, 3)


def _in_own_axes(transform: tuple[float, ...], point_room_3: Any) -> F64:
    room_T_own_44 = np.array(transform).reshape(4, 4).T
    return (np.asarray(point_room_3) - room_T_own_44[:3, 3]) @ room_T_own_44[:3, :3]


# --- nodes ------------------------------------------------------------------------------------------


def _kind(element: Any) -> str:
    """Of its material."""
    if hasattr(element, "stands_on"):
        return "furniture"
    return "guessed wall" if getattr(element, "is_guessed", False) else next(iter(element.category))


def _pose(transform: tuple[float, ...], scale: list[float]) -> dict[str, Any]:
    from scipy.spatial.transform import Rotation

    room_T_own_44 = np.array(transform).reshape(4, 4).T
    rotation_xyzw = Rotation.from_matrix(room_T_own_44[:3, :3]).as_quat(canonical=True)
    pose = {"translation": list(transform[12:15]), "rotation": (np.round(rotation_xyzw, 9) + 0.0).tolist()}
    return {**pose, "scale": scale} if scale != [1.0, 1.0, 1.0] else pose


def _extras(element: Any) -> dict[str, Any]:
    told = element.model_dump(mode="json")
    names = ("identifier", "parentIdentifier", "category", "dimensions", "sigma", "confidenceValue", "isGuessed")
    return {"extras": {name: told[name] for name in names if told.get(name) is not None}}


def _finish_gltf(tree: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    """What trimesh does not write itself: nodes, scenes, colours of more than 8 bits, buffer targets, our name."""
    tree["asset"]["generator"] = "geomagic"
    mesh_index = {mesh["name"]: index for index, mesh in enumerate(tree["meshes"])}
    tree["nodes"] = [{**node, "mesh": mesh_index[node["mesh"]]} if "mesh" in node else node for node in nodes]
    tree["scene"], tree["scenes"] = 0, [{"name": "room", "nodes": [0]}]
    parents = [index for index, node in enumerate(nodes) if "children" in node]
    if parents:
        tree["scenes"].append({"name": PARTS_SCENE, "nodes": parents})
    for mesh in tree["meshes"]:
        mesh.pop("extras", None)  # empty
        primitive = mesh["primitives"][0]
        attributes = primitive["attributes"]
        if "_COLOR" in attributes:
            attributes["COLOR_0"] = attributes.pop("_COLOR")
            tree["accessors"][attributes["COLOR_0"]]["normalized"] = True
        for accessor in attributes.values():
            tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]["target"] = 34962  # ARRAY_BUFFER
        indices = tree["accessors"][primitive["indices"]]
        tree["bufferViews"][indices["bufferView"]]["target"] = 34963  # ELEMENT_ARRAY_BUFFER
