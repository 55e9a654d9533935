"""The environment of a release: made from its record, as one step; verified; shared; removed without a trace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomagic_dagster.releases import environments, interpreters, pinned, sharing, wheels, workspace
from geomagic_dagster.releases.archive import archive
from geomagic_dagster.releases.cut import cut
from geomagic_dagster.releases.libraries import read_environment as recorded_libraries
from geomagic_dagster.releases.record import (
    RELEASE,
    ReleaseError,
    Version,
    read_release,
    record_folder,
    verify_record,
    with_hashes,
    write_release,
)
from geomagic_dagster.releases.replay import replay
from geomagic_dagster.releases.routing_table import NEVER, read_document
from tests.conftest import REPOSITORY
from tests.releases.projects import borrowing, copy_of_project, in_environment, small_record

POINTS = ("made", "filled", "linked", "checked")
CODE = "from geomagic_dagster.releases.installed import made_by; print(made_by())"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return copy_of_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def record(tmp_path_factory, project) -> Path:
    return small_record(tmp_path_factory.mktemp("cut"), project)


@pytest.fixture(scope="module")
def home(tmp_path_factory, record) -> Path:
    """A home with release 1.0 installed."""
    home = tmp_path_factory.mktemp("home")
    environments.install(record, home, fill=borrowing())
    return home


def installed(home: Path) -> environments.Environment:
    environment = environments.installed(home, "1.0")
    assert environment is not None
    return environment


# --- names and records ----------------------------------------------------------------------------


@given(major=st.integers(0, 999_999), minor=st.integers(0, 999_999), patch=st.integers(0, 999_999))
def test_a_version_is_read_as_it_is_written(major, minor, patch):
    version = Version(major, minor, patch)
    assert Version.parse(str(version)) == version
    assert Version.parse(version.line) == Version(major, minor)


@given(st.text(max_size=12).filter(lambda text: not all(part.isdigit() for part in text.split("."))))
def test_what_is_no_version_is_refused_in_words(text):
    with pytest.raises(ReleaseError, match="expected a line like 1.0"):
        Version.parse(text)


@pytest.mark.parametrize("name", ["../1.0", "1.0/..", "1.0\n", "1", "1.0.0.0", "v1.0", "01.0", "1.0 ", "latest", "١.٠"])
def test_a_name_that_would_lead_elsewhere_is_no_version(name):
    with pytest.raises(ReleaseError, match="expected a line like 1.0"):
        Version.parse(name)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n")), max_size=3),
    st.text(st.characters(exclude_categories=("Cs",))),
)
def test_a_record_is_read_as_it_was_written(tmp_path_factory, subjects, who):
    from geomagic_dagster.releases.record import Change, Pinned, Release

    folder = tmp_path_factory.mktemp("record")
    release = Release(
        line="1.0", version="1.0.3", commit="c" * 40, branch="release-1.0", cut_by=who, cut_at="2026", python="3.11.7",
        files={"a b.whl": "0" * 64}, pinned=Pinned(7, 24, "here", {"mesh": "1"}, {"room.glb": "2"}),
        changes=tuple(Change("d" * 40, "2026-11-21T10:00:00+01:00", subject) for subject in subjects),
    )  # fmt: skip
    write_release(release, folder)
    assert read_release(folder) == release


@pytest.mark.parametrize("file", ["manifest.json", "requirements.lock", "geomagic_dagster-1.0.0-py3-none-any.whl"])
def test_a_record_with_another_byte_is_refused_and_named(record, tmp_path, file):
    edited = shutil.copytree(record, tmp_path / "record")
    with open(edited / file, "ab") as opened:
        opened.write(b"\n")
    with pytest.raises(ReleaseError, match=rf"{file}: expected sha256 \w+..., as release.toml says; got sha256 .* git"):
        verify_record(edited)
    (edited / file).unlink()
    with pytest.raises(ReleaseError, match=rf"{file}: expected .*; got no such file"):
        verify_record(edited)


def test_a_record_of_newer_code_is_refused(record, tmp_path):
    edited = shutil.copytree(record, tmp_path / "record")
    text = (edited / RELEASE).read_text()
    (edited / RELEASE).write_text(text.replace("schema = 1", "schema = 2"))
    with pytest.raises(ReleaseError, match="expected schema 1 or older; got schema 2"):
        read_release(edited)
    (edited / RELEASE).write_text("line = ")
    with pytest.raises(ReleaseError, match="expected the record of a release, as it was cut; got TOMLDecodeError"):
        read_release(edited)


def test_a_release_that_is_not_recorded_is_named_beside_those_that_are(record, tmp_path):
    shutil.copytree(record, tmp_path / "1.0")
    assert record_folder(tmp_path, "1.0") == record_folder(tmp_path, "1.0.0") == tmp_path / "1.0"
    with pytest.raises(ReleaseError, match=r"release 1.0.4: .* there are: 1.0.0\."):
        record_folder(tmp_path, "1.0.4")


# --- installing -----------------------------------------------------------------------------------


def test_the_code_of_an_environment_knows_which_release_it_is(home):
    done = in_environment(installed(home), CODE, PYTHONPATH="")
    assert "'release': '1.0', 'version': '1.0.0'" in done.stdout, done.stderr


def test_an_environment_sees_no_code_but_its_own(home, tmp_path, monkeypatch):
    (tmp_path / "geomagic_dagster").mkdir()
    (tmp_path / "geomagic_dagster" / "__init__.py").write_text("raise SystemExit('other code')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = in_environment(installed(home), "import geomagic_dagster; print(geomagic_dagster.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed(home).folder), done.stderr


@pytest.mark.parametrize("point", POINTS)
def test_an_install_that_is_killed_leaves_nothing_that_looks_installed(record, tmp_path, point, monkeypatch):
    command = [sys.executable, "-m", "tests.releases.install_process", str(record), str(tmp_path), point]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    assert environments.installed(tmp_path, "1.0") is None
    assert list((tmp_path / "releases" / "1.0").glob("env-*"))  # what it left ...
    if point == "linked":
        monkeypatch.setattr(environments, "check_loads", lambda environment: None)  # that of `home` loaded
        environment = environments.install(record, tmp_path, fill=borrowing())
        assert list((tmp_path / "releases" / "1.0").glob("env-*")) == [environment.folder]  # ... is swept away


def test_an_install_that_fails_keeps_what_was_installed(home, record, tmp_path):
    before = installed(home)
    edited = shutil.copytree(record, tmp_path / "record")
    manifest = json.loads((edited / "manifest.json").read_bytes())
    manifest["stages"][0]["version"] = "77"
    (edited / "manifest.json").write_text(json.dumps(manifest))
    write_release(with_hashes(read_release(edited), edited), edited)
    with pytest.raises(ReleaseError, match="expected release 1.0.0 to load; got .*manifest of release 1.0.0"):
        environments.install(edited, home, fill=borrowing())
    assert installed(home) == before
    assert list((home / "releases" / "1.0").glob("env-*")) == [before.folder]


def test_two_installs_at_once_are_one_and_a_sentence(home, record):
    with (
        environments.locked(home, "1.0"),
        pytest.raises(ReleaseError, match="expected to be the only one; got another that installs it right now"),
    ):
        environments.install(record, home, fill=borrowing())


def test_another_python_is_refused(record, tmp_path):
    python = tmp_path / "python3.9"
    python.write_text("#!/bin/sh\necho cp39-linux-x86_64 3.9.2\n")
    python.chmod(0o755)
    wanted = ".".join(sys.version.split(".")[:2])
    with pytest.raises(
        ReleaseError, match=rf"expected Python {wanted}, as it was cut with; got Python 3.9.2. Say where"
    ):
        environments.install(record, tmp_path / "home", python=python)
    with pytest.raises(ReleaseError, match="no-such-python"):
        environments.install(record, tmp_path / "home", python=tmp_path / "no-such-python")
    assert environments.installed(tmp_path / "home", "1.0") is None


def script(path: Path, says: str, otherwise: str) -> Path:
    """An interpreter that says this of itself, and is asked nothing else than that, or does otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\ncase "$*" in *get_platform*) {says};; *) {otherwise};; esac\n')
    path.chmod(0o755)
    return path


def test_where_latest_has_another_python_the_recorded_one_is_found_by_its_name(record, tmp_path, monkeypatch):
    """As with a latest that has moved on; a shim of pyenv whose version is not switched on is passed over."""
    wanted = ".".join(sys.version.split(".")[:2])
    newer = script(tmp_path / "newer", "echo cp399-linux-x86_64 3.99.0", f'exec "{sys.executable}" "$@"')
    shim = script(tmp_path / "shims" / f"python{wanted}", "exit 127", "exit 127")
    older = script(tmp_path / "other" / f"python{wanted}", "echo cp39-linux-x86_64 3.9.2", "exit 1")
    here = tmp_path / "bin" / f"python{wanted}"
    here.parent.mkdir()
    here.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(newer))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", os.pathsep.join(str(folder.parent) for folder in (shim, older)))
    words = rf"expected Python {wanted}, as it was cut with; got Python 3.99.0, and no other one on the path or in pyenv that is called python{wanted} and runs \({shim} did not\). Say where there is one: geomagic release install 1.0 --python"
    with pytest.raises(ReleaseError, match=words):
        environments.install(record, tmp_path / "home", fill=borrowing())
    assert environments.installed(tmp_path / "home", "1.0") is None
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{here.parent}")
    said: list[str] = []
    environment = environments.install(record, tmp_path / "home", fill=borrowing(), say=said.append)
    assert said[0] == f"making an environment with Python {sys.version.split()[0]} ({here}) ..."
    assert in_environment(environment, "import sys; print(sys.version_info[:2])").stdout == f"{sys.version_info[:2]}\n"


def test_of_the_pythons_in_pyenv_the_newest_patch_comes_first(tmp_path):
    for version in ("3.11.9", "3.11.10", "3.12.1"):
        script(tmp_path / "versions" / version / "bin" / "python3.11", "true", "true")
    found = interpreters.named("3.11", {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)})
    assert [path.parent.parent.name for path in found] == ["3.11.10", "3.11.9"]


def test_a_wheel_that_is_not_the_recorded_one_is_refused(record, tmp_path):
    """The record names files by their digest; a wheelhouse with others, and no network, has nothing to give."""
    edited = shutil.copytree(record, tmp_path / "record")
    tag = subprocess.run([sys.executable, "-c", interpreters.PLATFORM], capture_output=True, text=True, check=True)
    entry = {"version": "1.0", "file": "toy-1.0-py3-none-any.whl", "sha256": "0" * 64, "files_sha256": "0" * 64}
    content = {"schema": 1, "distributions": {"geomagic-no-such-library": entry}}
    (edited / f"environment-{tag.stdout.split()[0]}.json").write_text(json.dumps(content))
    with pytest.raises(ReleaseError, match="expected the very files that the record names(.|\n)*--record-new"):
        environments.install(edited, tmp_path / "home")
    assert environments.installed(tmp_path / "home", "1.0") is None
    assert not list((tmp_path / "home" / "releases" / "1.0").glob("env-*"))


# --- verifying ------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, home) -> environments.Environment:
    """An environment that a test may spoil: a copy of that of `home`, since to make one and load it takes long."""
    shutil.copytree(home / "releases", tmp_path / "home" / "releases", symlinks=True)
    return installed(tmp_path / "home")


def packages_of(environment: environments.Environment) -> Path:
    return next(environment.folder.glob("lib/python3*/site-packages"))


def spoil_a_file(environment: environments.Environment) -> str:
    with open(packages_of(environment) / "geomagic_dagster" / "cv" / "camera.py", "a") as file:
        file.write("\n")
    return "geomagic-dagster: geomagic_dagster/cv/camera.py was changed"


def remove_a_file(environment: environments.Environment) -> str:
    (packages_of(environment) / "geomagic_dagster" / "cv" / "camera.py").unlink()
    return "geomagic-dagster: geomagic_dagster/cv/camera.py is missing"


def add_code(environment: environments.Environment) -> str:
    (packages_of(environment) / "sitecustomize.py").write_text("")
    return "sitecustomize.py belongs to no library"


def add_a_library(environment: environments.Environment) -> str:
    (packages_of(environment) / "toy-1.0.dist-info").mkdir()
    (packages_of(environment) / "toy-1.0.dist-info" / "RECORD").write_text("")
    return "toy was added"


def swap_the_manifest(environment: environments.Environment) -> str:
    (environment.folder / "geomagic-release" / "manifest.json").write_text("{}")
    return "geomagic-release/manifest.json is not that of the record"


def rewrite_the_list_too(environment: environments.Environment) -> str:
    """Somebody who changes a file and its hash in the environment's own list."""
    path = next(packages_of(environment).glob("geomagic_dagster-*.dist-info/RECORD"))
    lines = [line for line in path.read_text().splitlines() if "cv/camera.py" not in line]
    path.write_text("\n".join(lines) + "\n")
    return "geomagic-dagster is not that of geomagic_dagster-1.0.0-py3-none-any.whl"


@pytest.mark.parametrize(
    "spoil", [spoil_a_file, remove_a_file, add_code, add_a_library, swap_the_manifest, rewrite_the_list_too]
)
def test_whatever_changed_in_an_environment_is_named(own, record, spoil):
    assert environments.differences(own, record) == ["borrowed.pth belongs to no library"]
    expected = spoil(own)
    assert expected in environments.differences(own, record)


# --- sharing and removing -------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    mine=st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=3), max_size=6),
    other=st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=3), max_size=6),
)
def test_exactly_what_is_equal_is_shared_and_no_byte_changes(tmp_path_factory, mine, other):
    folders = tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("other")
    for folder, files in zip(folders, (mine, other), strict=True):
        for name, content in files.items():
            (folder / "deep").mkdir(exist_ok=True)
            (folder / "deep" / name).write_bytes(content)
    sharing.link_shared(folders[0], [folders[1], folders[0]])
    assert {name: (folders[0] / "deep" / name).read_bytes() for name in mine} == mine
    shared = {name for name in mine if (folders[0] / "deep" / name).stat().st_nlink == 2}
    assert shared == {name for name in mine if other.get(name) == mine[name]}
    own = sharing.usage(folders[0])
    assert own.total - own.own == sum((folders[0] / "deep" / name).stat().st_blocks * 512 for name in shared)


def test_what_was_compiled_of_a_shared_module_is_shared_too(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("x = 1\n")
    (tmp_path / "old" / "__pycache__").mkdir()
    (tmp_path / "old" / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"compiled")
    sharing.link_shared(tmp_path / "new", [tmp_path / "old"])
    shared = tmp_path / "new" / "__pycache__" / "module.cpython-311.pyc"
    assert shared.samefile(tmp_path / "old" / "__pycache__" / "module.cpython-311.pyc")


def test_a_release_that_is_removed_leaves_nothing_and_comes_back_the_same(own, record, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "check_loads", lambda environment: None)  # that of `home` loaded
    home = tmp_path / "home"
    assert environments.remove(home, "1.0") > 0
    assert environments.installed(home, "1.0") is None and not (home / "releases" / "1.0").exists()
    back = environments.install(record, home, fill=borrowing())
    assert environments.differences(back, record) == ["borrowed.pth belongs to no library"]


def test_a_release_that_somebody_runs_in_is_not_removed(own, tmp_path):
    program = [str(own.python), "-c", "print('up', flush=True); input()"]
    runs = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert runs.stdout is not None and runs.stdout.readline() == b"up\n"
        with pytest.raises(ReleaseError, match=f"expected nobody who still runs in it; got processes {runs.pid}"):
            environments.remove(tmp_path / "home", "1.0", wait_s=0)
        assert environments.installed(tmp_path / "home", "1.0") is None and own.python.exists()
        assert not environments.is_in_force(own.folder)  # who is warm in it ends now
    finally:
        runs.communicate(b"\n")
    environments.remove(tmp_path / "home", "1.0")
    assert not own.folder.exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"default": "1.0"}, "got it is the default"),
        ({"flights": [{"id": "f-1", "release": "1.0", "per_cent": 10}]}, "got flight f-1 sends it 10 %"),
        ({"pins": {"room": "1.0"}}, "got these scans are pinned to it: room"),
    ],
)
def test_a_release_that_gets_uploads_is_not_archived(own, tmp_path, table, words):
    file = tmp_path / "workspace.yaml"
    file.write_text("load_from:\n  - python_module:\n      module_name: a\n")
    workspace.add(file, "1.0")
    document = {"schema": 1, "revision": 1, "default": "latest", "live": ["latest", "1.0"], **table}
    with pytest.raises(ReleaseError, match=f"release 1.0: expected one that gets no uploads any more; {words}"):
        archive(file, tmp_path / "home", "1.0", read_document(document, "a table"))
    assert workspace.lines(file) == {"1.0"} and environments.installed(tmp_path / "home", "1.0") == own
    assert archive(file, tmp_path / "home", "1.0", NEVER) > 0
    assert workspace.lines(file) == set() and environments.installed(tmp_path / "home", "1.0") is None


def test_a_result_is_compared_file_by_file(record, tmp_path, monkeypatch):
    records, folder = tmp_path / "releases", tmp_path / "mesh"
    shutil.copytree(record, records / "1.0")
    folder.mkdir()
    then = {"stage": "mesh", "identity": "m", "value": {}, "numbers": {}, "files": {"a.npy": {"sha256": "1" * 64}}}
    (folder / "artefact.json").write_text(json.dumps(then))
    build = partial(environments.build, fill=borrowing())
    for now, same, differing in (
        (then, ("a.npy",), ()),
        ({**then, "numbers": {"x": 1}}, ("a.npy",), ("values and numbers: others now",)),
        (
            {**then, "identity": "n", "files": {}},
            (),
            ("identity: m then, n now", "a.npy: sha256 111111111111... then, no such file now"),
        ),
    ):
        monkeypatch.setattr(pinned, "process", lambda *asked, now=now: pinned.Result({"mesh": now}, {}))
        done = replay(records, tmp_path / "home", "1.0", tmp_path, artefact=folder, build=build)
        assert (done.same, done.differing) == (same, differing)


# --- the true thing -------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_the_lock_without_the_network_shared_with_another_release_and_replayed(project, tmp_path, monkeypatch):
    """A true cut; its environment made again on "another machine" (another home) from the record and the wheels
    alone; a scan of a year ago reproduced. What the second environment on a disk adds is a few per cent."""
    wheelhouse = Path(os.environ.get("GEOMAGIC_TEST_WHEELS", tmp_path / "wheels"))
    try:
        wheels.fetch(project / "requirements.lock", wheelhouse)
    except wheels.PipFailed as error:
        pytest.skip(f"no way to get the wheels of requirements.lock here: {error}")
    first, second = tmp_path / "first", tmp_path / "second"
    for home in (first, second):
        (home / "releases").mkdir(parents=True)
        (home / "releases" / "wheels").symlink_to(wheelhouse)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/nobody")  # from here on there is no network
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    done = cut(project, first, "1.0")
    recorded = next(done.record.glob("environment-*.json"))
    libraries = recorded_libraries(recorded)
    assert libraries["torch"].wheel.sha256 and len(libraries) > 50

    environment = environments.install(done.record, second, share_with=environments.all_environments(first))
    assert environments.differences(environment, done.record) == []
    assert environments.record_platform(environment, done.record) is None  # it is the recorded one
    usage = sharing.usage(environment.folder)
    print(f"total {usage.total / 1e6:.0f} MB, own {usage.own / 1e6:.1f} MB")
    assert usage.own < 0.05 * usage.total

    scan, then = tmp_path / "room", tmp_path / "then"
    geomagic = [str(environment.python), "-m", "geomagic_dagster.cli"]
    env = environments.own_environment(os.environ) | {"GEOMAGIC_HOME": str(then), "DAGSTER_HOME": str(then / "dagster")}
    subprocess.run(
        [*geomagic, "scan", "make-up", str(scan), "--seed", "3", "--frames", "16", "--clean"], env=env, check=True
    )
    subprocess.run([*geomagic, "run", str(scan)], env=env, check=True, capture_output=True)
    published = then / "packages" / "room.run.json"
    replayed = replay(project / "releases", first, "1.0", scan, package=published)
    assert replayed.differing == () and {"room.glb", "room.json"} <= set(replayed.same)


def test_an_environment_in_which_a_library_does_not_import_is_refused_by_its_name(tmp_path):
    """The interpreter is this one, with a package in the project's place that says what did not import."""
    package = tmp_path / "code" / "geomagic_dagster" / "launching"
    package.mkdir(parents=True)
    (package / "preload.py").write_text(
        "def preload(name):\n    return {'skimage.measure': 'No module named skimage'}\n"
    )
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "code"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = environments.Environment(
        tmp_path, read_release(record_folder(REPOSITORY / "releases", "1.0.0")), "linux"
    )
    with pytest.raises(ReleaseError, match=r"release 1\.0\.0 to load; got skimage\.measure: No module named skimage"):
        environments.check_loads(environment)
    (package / "preload.py").write_text("def preload(name):\n    return {}\n")
    environments.check_loads(environment)
