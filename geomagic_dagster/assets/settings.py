"""A stage's settings as a form of Dagster's launchpad.

Belongs here: turning a `Params` class into a Dagster `Config` class. Does not belong here: any setting itself.
"""

from typing import Any

import annotated_types
from dagster import Config
from pydantic import create_model
from pydantic.fields import FieldInfo

from geomagic_dagster.cv.stage import Stage

SIGNS = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
)


def settings_form(stage: Stage) -> type[Config]:
    """The same names, types, defaults and limits; the launchpad cannot show limits, so the descriptions say them."""
    fields: dict[str, Any] = {
        name: (field.annotation, FieldInfo.merge_field_infos(field, description=_described(field)))
        for name, field in stage.params.model_fields.items()
    }
    return create_model(f"{stage.name}_settings", __base__=Config, **fields)


def _described(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(limit, attribute):g}"
        for kind, attribute, sign in SIGNS
        for limit in field.metadata
        if isinstance(limit, kind)
    ]
    return f"{field.description} ({' and '.join(limits)})" if limits else str(field.description)
