"""room.json: the room in the shape of RoomPlan's CapturedRoom, with what that has no place for beside it.

Belongs here: the models of room.json; its published schema, room.schema.json, is made from them. Does not belong here:
filling them (room_document.py), drawing (floor_plan.py), the nodes in the GLB (room_glb.py).

What iOS developers know is where Apple puts it: walls, doors, windows, openings (our passages), floors, objects, each
with identifier, category, confidence, dimensions, transform, parentIdentifier. A surface's own axes: x to the right as
seen from the room, y up, z into the room (floor: x along most of the walls, z up; ceiling: z down); a box's: x along
its width, y up, z along its depth. `transform` takes them to the axes of room.glb (y up), sixteen numbers by columns.
RoomPlan has no category for a thing of unknown class, and a decoder of its closed enumeration would stop there: such
boxes are in `otherObjects`. Its `coreModel` (RoomPlan's own data, base64) nobody else can make: it is left out.

    python -m geomagic_dagster.cv.room_model > geomagic_dagster/cv/room.schema.json
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SCHEMA_ID = "urn:geomagic:room:1"

ObjectKind = Literal[
    "storage", "refrigerator", "stove", "bed", "sink", "washerDryer", "toilet", "bathtub", "oven", "dishwasher",
    "table", "sofa", "chair", "fireplace", "television", "stairs",
]  # fmt: skip
OBJECT_KINDS: tuple[str, ...] = ObjectKind.__args__  # type: ignore[attr-defined]


# --- the models -------------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False,
        serialize_by_alias=True,
    )  # fmt: skip


class Nothing(_Model):
    """{}: how Swift writes a case of an enumeration that carries nothing."""


class DoorState(_Model):
    is_open: bool = Field(description="Always false: whether a leaf stands open is not told.")


Length = Annotated[float, Field(ge=0)]
Sigma = Annotated[float, Field(ge=0, description="Standard deviation in metres.")]
Xyz = tuple[float, float, float]
Dimensions = tuple[Length, Length, Length]
Transform = Annotated[
    tuple[float, ...],
    Field(min_length=16, max_length=16, description="By columns; the translation is at 12, 13 and 14."),
]
Identifier = Annotated[str, Field(pattern="^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$")]
OneCase = Field(min_length=1, max_length=1)
Confidence = Annotated[dict[Literal["high", "medium", "low"], Nothing], OneCase]

Category = TypeVar("Category")


class Element(_Model, Generic[Category]):
    """What every surface and object has. `name` is that of the node in room.glb and of the row in measurements.csv."""

    identifier: Identifier
    name: str
    category: Category
    confidence: Confidence
    confidence_value: float = Field(ge=0, le=1, description="The same from 0 to 1.")
    dimensions: Dimensions = Field(description="Width, height, depth in metres; the depth of a surface is 0.")
    transform: Transform
    parent_identifier: Identifier | None
    story: int


class Surface(Element[Category], Generic[Category]):
    polygon_corners: list[Xyz] = Field(description="In the surface's own axes; empty where it is a rectangle.")
    completed_edges: list[Nothing] = Field(max_length=0, description="RoomPlan's own; always empty.")
    curve: None


class WallSigma(_Model):
    position: Sigma = Field(description="Across the wall.")
    length: Sigma
    height: Sigma | None = Field(description="null: the height is not measured.")


class Wall(Surface[Annotated[dict[Literal["wall"], Nothing], OneCase]]):
    is_guessed: bool = Field(description="Nobody saw this wall; it only closes the outline.")
    is_height_measured: bool = Field(description="False: floor or ceiling was not seen; the wall is as high as seen.")
    sigma: WallSigma


class OpeningSigma(_Model):
    edge: Sigma = Field(description="Of width, height, start and sill alike.")


class _Opening(Surface[Category], Generic[Category]):
    start: float = Field(description="Along wall i from corner i (see measured.corners) to the opening's nearer edge.")
    sill: float = Field(description="Lower edge above the floor.")
    sigma: OpeningSigma


class Door(_Opening[Annotated[dict[Literal["door"], DoorState], OneCase]]): ...


class Window(_Opening[Annotated[dict[Literal["window"], Nothing], OneCase]]): ...


class Passage(_Opening[Annotated[dict[Literal["opening"], Nothing], OneCase]]): ...


class LevelSigma(_Model):
    height: Sigma = Field(description="Of its height in the room.")


class Floor(Surface[Annotated[dict[Literal["floor"], Nothing], OneCase]]):
    sigma: LevelSigma


class Ceiling(Surface[Annotated[dict[Literal["ceiling"], Nothing], OneCase]]):
    """Level, at the height of its largest level part; slopes and steps are in measured.ceilingPlanes."""

    sigma: LevelSigma


class BoxSigma(_Model):
    dimensions: tuple[Sigma, Sigma, Sigma] = Field(description="Of width, height, depth.")
    centre: tuple[Sigma, Sigma, Sigma] = Field(description="Along x, y, z of room.glb.")


class _Box(Element[Category], Generic[Category]):
    attributes: dict[str, str] = Field(max_length=0, description="RoomPlan's own; always empty.")
    stands_on: Literal["floor", "wall", "object"] = Field(description="object: the one of parentIdentifier.")
    sigma: BoxSigma


class Object(_Box[Annotated[dict[ObjectKind, Nothing], OneCase]]): ...


class OtherObject(_Box[Annotated[dict[Literal["object"], Nothing], OneCase]]):
    """A box of unknown class."""


class Quantity(_Model):
    value: float
    sigma: Annotated[float, Field(ge=0, description="Standard deviation, in the unit of the value.")] | None


class CeilingPlane(_Model):
    """y = slopeX * x + slopeZ * z + y0 in the axes of room.glb."""

    slope_x: float
    slope_z: float
    y0: float
    area: Length


class Corner(_Model):
    x: float
    z: float
    sigma: Sigma


class Measured(_Model):
    """The room as a whole: metres, square metres, cubic metres; null where it is not known."""

    is_closed: bool = Field(description="False: only a part was seen; no floor polygon, no area, no volume.")
    corners: list[Corner] = Field(description="The outline in the order of the walls: wall i runs from i to i + 1.")
    perimeter: Quantity | None
    area: Quantity | None
    height: Quantity | None
    volume: Quantity | None
    floor_y: Quantity | None
    ceiling_y: Quantity | None
    floor_levels: list[float] = Field(description="y of every level part of the floor, largest first.")
    ceiling_planes: list[CeilingPlane] = Field(description="Largest first.")
    snapped: str = Field(description="What was set to right angles, and on what evidence; empty: nothing.")


class RoomDocument(_Model):
    """A room as scanned: RoomPlan's CapturedRoom, with a ceiling and standard deviations."""

    schema_version: Literal[1]
    units: Literal["metres"]
    axes: Literal["right-handed, +Y up, those of room.glb; the origin is the device's own"]
    version: Literal[2] = Field(description="Of CapturedRoom.")
    identifier: Identifier
    story: int
    reference_origin_transform: Transform
    walls: list[Wall]
    doors: list[Door]
    windows: list[Window]
    openings: list[Passage]
    floors: list[Floor]
    objects: list[Object]
    sections: list[Nothing] = Field(max_length=0, description="RoomPlan's labels of areas; always empty.")
    ceilings: list[Ceiling]
    other_objects: list[OtherObject] = Field(description="Boxes of unknown class, for which RoomPlan has no category.")
    measured: Measured
    warnings: list[str] = Field(description="Sentences for a person: what was not seen, what was guessed.")

    def to_json(self) -> bytes:
        """The file room.json; read back and checked as strictly as any reader of the schema would."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        encoded = text.encode("utf-8", "backslashreplace")  # lone surrogates of file names: as JSON escapes them
        RoomDocument.model_validate_json(encoded, strict=True)
        return encoded

    def surfaces(self) -> list[Any]:
        return [*self.floors, *self.ceilings, *self.walls, *self.doors, *self.windows, *self.openings]

    def boxes(self) -> list[Any]:
        return [*self.objects, *self.other_objects]


def schema() -> str:
    """The published JSON schema of room.json, as it stands in room.schema.json."""
    described = RoomDocument.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return json.dumps({**head, **described}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
