"""A code location knows which release it is, and refuses to load where its code is not that of its manifest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.releases import installed
from geomagic_dagster.releases.installed import ReleaseBroken, installed_release, made_by, release_here
from geomagic_dagster.releases.manifest import check_installed, compile_manifest, manifest_sha256, to_json
from tests.conftest import REPOSITORY

RELEASE = 'schema = 1\nline = "1.0"\nversion = "1.0.1"\ncommit = "abc"\n'


def write_release(prefix: Path, edit=lambda manifest: None) -> Path:
    folder = prefix / "geomagic-release"
    folder.mkdir(parents=True)
    (folder / "release.toml").write_text(RELEASE)
    manifest = compile_manifest(find_stages(), REPOSITORY / "requirements.lock")
    edit(manifest)
    (folder / "manifest.json").write_text(to_json(manifest | {"sha256": manifest_sha256(manifest)}))
    return folder


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """The prefix of this process, for a test."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    installed._read.cache_clear()
    yield tmp_path
    installed._read.cache_clear()


def test_a_checkout_is_latest_or_what_the_environment_says(prefix):
    assert installed_release() is None
    assert (release_here(None), release_here(""), release_here("1.0")) == ("latest", "latest", "1.0")
    assert made_by() == {"release": "latest"}
    check_installed(())


def test_an_environment_says_which_release_it_holds(prefix):
    folder = write_release(prefix)
    release = installed_release()
    assert release is not None
    assert (release.line, release.version, release.commit, release.folder) == ("1.0", "1.0.1", "abc", folder)
    assert (release_here(None), release_here("1.0")) == ("1.0", "1.0")
    assert made_by() == {"release": "1.0", "version": "1.0.1", "commit": "abc"}
    check_installed(find_stages())


def test_a_variable_that_says_otherwise_is_refused(prefix):
    write_release(prefix)
    with pytest.raises(ReleaseBroken, match=r"GEOMAGIC_RELEASE: expected 1\.0, which .*; got 1\.1\. Unset it"):
        release_here("1.1")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("release.toml", "line = ", "expected line, version and commit of the release"),
        ("release.toml", 'line = "1.0"', "got no 'version'"),
        ("manifest.json", "{", "expected the manifest of release 1.0.1; got "),
        (
            "release.toml",
            f'{RELEASE}[files]\n"manifest.json" = "{"0" * 64}"\n',
            "got another one than its release.toml names",
        ),
        ("manifest.json", "[]", "expected the manifest of release 1.0.1; got a list"),
    ],
)
def test_a_folder_that_cannot_be_read_says_where(prefix, name, content, words):
    (write_release(prefix) / name).write_text(content)
    with pytest.raises(ReleaseBroken) as refused:
        check_installed(find_stages())
    assert words in str(refused.value)
    assert "geomagic release install" in str(refused.value)


def test_code_that_disagrees_is_refused_with_the_place(prefix):
    write_release(prefix, lambda manifest: manifest["stages"][3].update(code_sha256="0" * 64, retries=9))
    name = find_stages()[3].name
    with pytest.raises(ReleaseBroken) as refused:
        check_installed(find_stages())
    assert f"release 1.0.1: its code is not what its manifest says: stage {name}, code_sha256: recorded 0" in str(
        refused.value
    )
    assert f"stage {name}, retries: recorded 9, found " in str(refused.value)
    assert "`geomagic release install 1.0` builds its environment anew" in str(refused.value)


LOAD = """
import json, sys
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

with DagsterInstance.get() as instance:
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([sys.argv[1]])) as process:
        context = process.create_request_context()
        print(json.dumps({
            entry.origin.location_name: {
                "error": entry.load_error.to_string() if entry.load_error else None,
                "keys": sorted(key.to_user_string() for key in entry.code_location.get_repository("__repository__")
                    .asset_graph.get_all_asset_keys()) if entry.code_location else [],
            }
            for entry in context.get_code_location_entries().values()
        }), file=open(sys.argv[2], "w"))
"""


def environment(folder: Path) -> Path:
    """A Python whose `sys.prefix` is this folder and that has everything that this one has; returns it."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "all.pth").write_text(f"{REPOSITORY}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_dagster_shows_where_a_location_disagrees_and_serves_the_others(tmp_path):
    entries = []
    for name in ("good", "broken"):
        python = environment(tmp_path / name)
        write_release(
            tmp_path / name, lambda m, name=name: m["stages"][0].update(retries=9) if name == "broken" else None
        )
        entry = {"module_name": "geomagic_dagster.definitions", "location_name": name, "executable_path": str(python)}
        entries.append({"python_module": entry})
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump({"load_from": entries}))
    (tmp_path / "dagster").mkdir()
    variables = {"DAGSTER_HOME": str(tmp_path / "dagster"), "GEOMAGIC_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path / "workspace.yaml"), str(tmp_path / "said.json")],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    locations = json.loads((tmp_path / "said.json").read_text())
    assert locations["good"]["error"] is None
    assert "v1_0/frames" in locations["good"]["keys"]
    said = locations["broken"]["error"]
    assert "release 1.0.1: its code is not what its manifest says: stage frames, retries: recorded 9, found 2." in said
    assert "geomagic release install 1.0" in said
