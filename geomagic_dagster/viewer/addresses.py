"""Where the page of a room is found on the server of rooms.

Belongs here: paths, so that who links to a page needs nothing else of the viewer. Does not belong here: what is
served there (server.py), on which host (resources/places.py).
"""

from __future__ import annotations

import os
from urllib.parse import quote

PACKAGES = "packages"
"""Published packages, by their folder's name."""
ARTEFACTS = "artefacts"
"""Packages in the artefact store, by their identity."""


def page_path(shelf: str, name: str) -> str:
    """The path of a package's page, "/packages/my%20room/"."""
    return f"/{shelf}/{quote(os.fsencode(name), safe='')}/"
