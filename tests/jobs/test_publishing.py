"""A package is there whole, the old one or the new one, whatever stops its publication when."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geomagic_dagster.cv.containers import Files
from geomagic_dagster.cv.types import Package
from geomagic_dagster.jobs import publishing
from geomagic_dagster.jobs.publishing import publish_package
from geomagic_dagster.resources.store import Artefact

CALLS = ("rename", "replace", "mkdir")
OLD, NEW = ({"room.glb": f"{age} glb".encode(), "manifest.json": f"{age} manifest".encode()} for age in ("old", "new"))


def publish(packages: Path, files: dict[str, bytes]) -> Path:
    package = Artefact("package", "p" + files["room.glb"].decode()[:3], lambda: Package(Files(files)))
    scan = Artefact("scan", "s", lambda: None, settings={"name": "room"}, inputs={"upload": "u"})
    return publish_package(package, scan, packages, run_id="r", release="latest")


def test_uploads_of_one_name_that_end_at_the_same_moment_have_a_package_each(tmp_path, monkeypatch):
    """room.zip and room.tar are both scans called room."""
    look = publishing._upload_published_as

    def look_slowly(*arguments):
        found = look(*arguments)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(publishing, "_upload_published_as", look_slowly)

    def of_upload(number: int) -> Path:
        package = Artefact("package", f"p{number}", lambda: Package(Files({"room.glb": b"%d" % number})))
        scan = Artefact("scan", "s", lambda: None, settings={"name": "room"}, inputs={"upload": f"{number}" * 64})
        return publish_package(package, scan, tmp_path, run_id="r", release="latest")

    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(of_upload, range(3)))
    assert len(set(folders)) == 3
    assert [(folder / "room.glb").read_bytes() for folder in folders] == [b"0", b"1", b"2"]


class Told(BaseException):
    """To end, as SIGTERM tells a run: at any moment."""


@pytest.mark.parametrize("stop_at", range(1, 9))
@pytest.mark.parametrize("is_before", [True, False])
def test_told_to_end_at_any_moment_it_leaves_the_old_package_or_the_new_one(tmp_path, monkeypatch, stop_at, is_before):
    folder = publish(tmp_path, OLD)
    count = 0

    def stopping(real):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == stop_at and is_before:
                raise Told
            result = real(*arguments, **options)
            if count == stop_at:
                raise Told
            return result

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(Path, name, stopping(getattr(Path, name)))
        try:
            publish(tmp_path, NEW)
            was_told = False
        except Told:
            was_told = True
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found in (OLD, NEW)
    assert was_told or found == NEW
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == [publishing.LOCK]
    publish(tmp_path, NEW)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == NEW


def test_the_run_record_says_which_release_made_it_and_the_package_does_not(tmp_path, monkeypatch):
    folder = publish(tmp_path, OLD)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    made_by = {"release": "1.0", "version": "1.0.1", "commit": "abc"}
    monkeypatch.setattr("geomagic_dagster.jobs.publishing.made_by", lambda: made_by)
    folder = publish(tmp_path, OLD)
    record = json.loads((tmp_path / f"{folder.name}.run.json").read_text())
    assert (record["release"], record["version"], record["commit"]) == ("latest", "1.0.1", "abc")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
