"""Texts of others, as everybody can read, print and store them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomagic_dagster.guardrails.words import LETTERS, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Küche 2. Stock.zip", "Küche 2. Stock.zip"),
        ("evil\u202egpj.exe", "evil\\u202egpj.exe"),
        ("half \udcff", "half \\udcff"),
        ("two\nlines\x1b[2J", "two\\nlines\\x1b[2J"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert plain(text) == shown


def test_the_middle_of_what_nobody_reads_is_left_out():
    text = plain("n" * 70_000 + ": expected each name once")
    assert (
        len(plain("\udcff" * 70_000)) == len(text) == LETTERS + 3
        and " … " in text
        and text.endswith("n: expected each name once")
    )


@given(st.text(st.characters()))
def test_anything_becomes_a_line_that_can_be_stored(text):
    assert plain(text).isprintable() and plain(text).encode().decode() == plain(text)
