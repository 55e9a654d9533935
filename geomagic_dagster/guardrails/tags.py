"""Names of the tags that runs carry, said once: sensors and jobs write them, logs and metrics read them."""

from collections.abc import Mapping

SCAN_TAG = "geomagic/scan"
UPLOAD_TAG = "geomagic/upload"
"""Name of the upload in the inbox."""
UPLOAD_KEY_TAG = "geomagic/upload_key"
"""Tells one stay of one upload in the inbox from another; the same for all attempts."""
ATTEMPT_TAG = "geomagic/attempt"
"""How often the upload was taken up; 1 is the first time."""
RELEASE_TAG = "geomagic/release"
VERSION_TAG = "geomagic/version"
"""Of a release line: 1.0.1 of 1.0; a run of latest has none."""
FLAGS_TAG = "geomagic/flags"
"""Feature flags that are on for the run: sorted names with commas between."""
ROUTE_REVISION_TAG = "geomagic/route_revision"
"""Of the routing table that sent the upload here."""
FLIGHT_TAG = "geomagic/flight"
"""The flight that the run is part of; none for the default and for a pin."""
SHADOW_TAG = "geomagic/shadow"
"""A run with this tag set to "true" publishes nothing and moves nothing."""
SHADOW_OF_TAG = "geomagic/shadow_of"
"""The customer's run that a shadow run follows."""
SHADOWS_TAG = "geomagic/shadows"
"""Of a customer's run: releases that are to see a copy of its upload, each with its flight: `1.1:f-1,1.2:f-2`."""
TAKEN_BACK_TAG = "geomagic/taken_back"
"""Set to "true" on a run that ended before it began, since its upload belongs to another one."""
AGAIN_TAG = "geomagic/taken_up_again"
"""Of a run that ended badly, and whose release was taken back since: the upload went into the inbox once more. The
revision of the routing table that took it back, or in force; empty where it came to nothing."""
PRIORITY_TAG = "dagster/priority"
DEADLINE_TAG = "geomagic/deadline_s"
RECOMPUTE_TAG = "geomagic/recompute"
"""A run with this tag set to "true" makes every artefact anew; the bytes are then compared to those that are there."""
RUN_KEY_TAG = "dagster/run_key"
MAX_RUNTIME_TAG = "dagster/max_runtime"


def route_in(tags: Mapping[str, str]) -> dict[str, str]:
    """How an upload came to the release of a run: the flight, the revision of the routing table, the flags."""
    said = {"flight": FLIGHT_TAG, "shadow": SHADOW_TAG, "revision": ROUTE_REVISION_TAG, "flags": FLAGS_TAG}
    return {name: tags[tag] for name, tag in said.items() if tags.get(tag)}


def flags_in(tags: Mapping[str, str]) -> tuple[str, ...]:
    """The feature flags that a run's tags turn on, sorted."""
    return tuple(sorted({name.strip() for name in tags.get(FLAGS_TAG, "").split(",")} - {""}))
