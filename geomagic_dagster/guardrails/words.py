"""Sentences that quote what somebody else wrote: names of files in an upload, what a server answered.

Belongs here: making such a text one that everybody can read, print and store. Does not belong here: the sentences.
"""

from __future__ import annotations

LETTERS = 4000
"""Of a sentence. A name in a zip may have 65,535, and no length helps whoever reads it."""


def plain(text: str, letters: int = LETTERS) -> str:
    """The text on one line, its middle left out where it is too long.

    What cannot be seen, turns what stands beside it, or is no letter at all (half a surrogate, as a tar's names may
    have, which no database takes) is written as an escape: "evil\\u202egpj.exe".
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= letters else f"{shown[: letters // 2]} … {shown[-letters // 2 :]}"
