"""Where everything lies, as the environment says; together with definitions.py the only reader of it.

Belongs here: the meaning of GEOMAGIC_*. Does not belong here: the code location (definitions.py). A command that only
has to know where things lie reads it here, and does not build every stage's job for that, which takes half a second.

    GEOMAGIC_HOME        everything that is not said to be elsewhere lies below it (default: .home)
    GEOMAGIC_RELEASE     the name of this release (default: that of the environment, else latest)
    GEOMAGIC_STORE       artefacts: a folder or any fsspec URL; GEOMAGIC_CACHE: its local cache where it is elsewhere
    GEOMAGIC_INBOX, GEOMAGIC_DONE, GEOMAGIC_QUARANTINE, GEOMAGIC_FAILED, GEOMAGIC_PACKAGES, GEOMAGIC_CORPUS
    GEOMAGIC_ROUTING     the routing table: a folder or an fsspec URL (default: routing/ in the store)
    GEOMAGIC_WEIGHTS     files of trained weights: a folder or an fsspec URL (default: weights/ in the store)
    GEOMAGIC_ROOMS_URL   where browsers find the pages of rooms (default: http://127.0.0.1:3001)
    GEOMAGIC_DEVICE      where tensors live (default: CUDA where there is one)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from geomagic_dagster.resources.places import Places

VARIABLES = {
    "GEOMAGIC_STORE": "store_url",
    "GEOMAGIC_CACHE": "cache",
    "GEOMAGIC_INBOX": "inbox",
    "GEOMAGIC_DONE": "done",
    "GEOMAGIC_QUARANTINE": "quarantine",
    "GEOMAGIC_FAILED": "failed",
    "GEOMAGIC_PACKAGES": "packages",
    "GEOMAGIC_CORPUS": "corpus",
    "GEOMAGIC_ROUTING": "routing_url",
    "GEOMAGIC_WEIGHTS": "weights_url",
    "GEOMAGIC_ROOMS_URL": "rooms_url",
    "GEOMAGIC_DEVICE": "device",
}


def home_from(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("GEOMAGIC_HOME") or ".home").expanduser().absolute()


def places_from(environment: Mapping[str, str]) -> Places:
    """The places that the environment names; folders become absolute, since steps run in other processes."""
    home = home_from(environment)
    said = {field: environment[variable] for variable, field in VARIABLES.items() if environment.get(variable)}
    folders = {name: said[name] for name in said if name not in ("device", "rooms_url") and "://" not in said[name]}
    return Places.in_home(
        home, **said | {name: str(Path(path).expanduser().absolute()) for name, path in folders.items()}
    )
