"""The packages of the artefact store, for the page of a room.

Belongs here: finding a package by its identity. Does not belong here: the server that asks (viewer/server.py), and
the packages that were published, which are plain folders (viewer/folders.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.cv.stage import SOURCE
from geomagic_dagster.resources.store import ArtefactStore

PACKAGE = "package"
"""The stage whose artefacts these are."""
IDENTITY = re.compile("[0-9a-f]{32}")


class StoreShelf:
    """Packages by their identity, whoever made them: an upload, or an asset of the corpus.

    Args:
        withdrawn: digests of uploads of which nothing is shown any more.
    """

    def __init__(self, store: ArtefactStore, withdrawn: Callable[[], Set[str]] = frozenset) -> None:
        self._store, self._withdrawn = store, withdrawn

    def names(self) -> list[str]:
        """None: an identity says nothing to a person; Dagster links to each."""
        return []

    def files(self, name: str) -> Files | None:
        """The files of a package; None where there is none of this identity. Raises: ArtefactCorrupt, Unavailable."""
        if not IDENTITY.fullmatch(name) or not self._store.saved(PACKAGE, name):
            return None
        if (withdrawn := self._withdrawn()) and self._upload_of(name) in withdrawn:
            return None
        return self._store.load(PACKAGE, name).files

    def _upload_of(self, name: str) -> str:
        """Digest of the upload that a package was made of; empty where it was made of none."""
        scan = self._store.find(PACKAGE, name).inputs.get(SOURCE)
        return self._store.find(SOURCE, scan).inputs.get("upload", "") if scan else ""
