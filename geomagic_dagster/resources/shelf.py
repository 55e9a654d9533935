"""The packages of the artefact store, for the page of a room.

Belongs here: finding a package by its identity. Does not belong here: the server that asks (viewer/server.py), and
the packages that were published, which are plain folders (viewer/folders.py).
"""

from __future__ import annotations

import re

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.resources.store import ArtefactStore

PACKAGE = "package"
"""The stage whose artefacts these are."""
IDENTITY = re.compile("[0-9a-f]{32}")


class StoreShelf:
    """Packages by their identity, whoever made them: an upload, or an asset of the corpus."""

    def __init__(self, store: ArtefactStore) -> None:
        self._store = store

    def names(self) -> list[str]:
        """None: an identity says nothing to a person; Dagster links to each."""
        return []

    def files(self, name: str) -> Files | None:
        """The files of a package; None where there is none of this identity. Raises: ArtefactCorrupt, Unavailable."""
        if not IDENTITY.fullmatch(name) or not self._store.saved(PACKAGE, name):
            return None
        return self._store.load(PACKAGE, name).files
