"""What senders read can be read, by day and by night: contrast as WCAG 2.2 AA asks for, 4.5 to 1."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY

CSS = (REPOSITORY / "geomagic_dagster/console/scans/static/scans/status.css").read_text()
COLOUR = re.compile(r"--([a-z]+): (#[0-9a-f]{3,6})\b")
LIGHT, DARK = (dict(COLOUR.findall(line)) for line in CSS.splitlines()[:2])


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, LIGHT | DARK], ids=["light", "dark"])
def test_every_colour_of_text_stands_out_from_its_paper(scheme):
    for name in ("ink", "accent", "bad", "good", "faint"):
        assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
    assert contrast("#ffffff", scheme["button"]) >= 4.5


def test_the_measure_is_right():
    assert contrast("#000", "#fff") == pytest.approx(21) and contrast("#767676", "#ffffff") == pytest.approx(4.54, 0.01)
