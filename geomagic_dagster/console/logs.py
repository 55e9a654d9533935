"""Lines of the console's log: without what opens something.

Belongs here: that filter. Does not belong here: which lines there are (settings.py).
"""

from __future__ import annotations

import logging
import re

KEYS = ((re.compile(r"/s/[^/\s?]{8,}"), "/s/..."), (re.compile(r"\bgm_[\w-]{8,}"), "gm_..."))
"""Keys of links to one scan, which Django writes down with each address that it does not find; tokens."""


class WithoutKeys(logging.Filter):
    """Leaves the line, and takes the keys out of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = plain = record.getMessage()
        for key, instead in KEYS:
            plain = key.sub(instead, plain)
        if plain != said:
            record.msg, record.args = plain, ()
        return True
