"""A copy of this project in a folder, and environments of its releases that borrow the libraries of the tests.

A true installation from the lock takes half a minute and more than a gigabyte: one test does it. All others make
environments whose libraries are those of the environment that the tests run in, but for what they say.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.jobs.local_run import REPOSITORY
from geomagic_dagster.releases import environments, git, libraries, pinned, wheels
from geomagic_dagster.releases.manifest import compile_manifest, to_json
from geomagic_dagster.releases.record import LOCK, MANIFEST, Release, read_release, with_hashes, write_release

HERE = Path(metadata.distribution("dagster").locate_file("")).resolve()
"""site-packages of the environment that the tests run in."""


def run_git(project: Path, *arguments: str) -> str:
    return git.git(project, "-c", "user.name=Ada Byron", "-c", "user.email=ada@example.org", *arguments)


def copy_of_project(folder: Path) -> Path:
    """A repository with the files of this checkout as they are now, in one commit, without its releases."""
    listed = git.git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in listed:
        source = REPOSITORY / name
        if source.is_file() and not source.is_symlink() and not name.startswith(("releases/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    (folder / "workspace.yaml").write_text(
        "# Which code locations there are.\nload_from:\n  - python_module:\n"
        "      module_name: geomagic_dagster.definitions\n      location_name: latest\n"
    )
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    run_git(folder, "config", "user.name", "Ada Byron")
    run_git(folder, "config", "user.email", "ada@example.org")
    return commit(folder, "Everything")


def commit(project: Path, subject: str) -> Path:
    run_git(project, "add", "--all")
    run_git(project, "commit", "--quiet", "--message", subject)
    return project


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file}: expected {old!r} once; it is there {text.count(old)} times"
    file.write_text(text.replace(old, new))


def other_version(name: str, version: str, folder: Path) -> Path:
    """A wheel of an installed pure library as if it were of another version."""
    distribution = metadata.distribution(name)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    rows, path = [], folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:

        def write(member: str, content: bytes) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{member},sha256={digest},{len(content)}")
            archive.writestr(member, content)

        for each in distribution.files or ():
            if ".." not in each.parts and ".dist-info" not in str(each) and "__pycache__" not in each.parts:
                write(str(each), Path(str(each.locate())).read_bytes())
        write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode())
        write(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return path


def downloaded(requirements: Mapping[str, str], folder: Path) -> list[Path]:
    """Pure wheels of these versions, without what they need; what lies in the folder is not asked for again.

    Raises: wheels.PipFailed where there is no way to get them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patterns = {name: f"{name.replace('-', '_')}-{version}-*-none-any.whl" for name, version in requirements.items()}
    if missing := [name for name, pattern in patterns.items() if not any(folder.glob(pattern))]:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
            wanted = [f"{name}=={requirements[name]}" for name in missing]
            wheels.pip("wheel", "--no-deps", "--wheel-dir", beside, *wanted)
            for path in Path(beside).glob("*.whl"):
                path.replace(folder / path.name)
    return [next(folder.glob(pattern)) for pattern in patterns.values()]


def borrowing(*own: Path) -> environments.Fill:
    """Fills an environment with the libraries of the tests; `own` wheels are truly installed into it."""

    def fill(
        folder: Path, record: Path, tag: str, version: str, wheelhouse: Path, record_new: bool, say: environments.Say
    ) -> str:
        installed = {}
        if own:
            quiet = ("--no-index", "--no-deps", "--no-compile")
            wheels.pip("--python", str(folder / "bin" / "python"), "install", *quiet, *map(str, own))
        for wheel in own:
            name, number, *_ = wheel.name.split("-")
            installed[name.replace("_", "-")] = wheels.Wheel(number, wheel.name, hashlib.sha256().hexdigest())
        libraries.write_environment(folder, record, tag, version, installed)
        packages = next(folder.glob("lib/python3*/site-packages"))
        (packages / "borrowed.pth").write_text(f"{HERE}\n")
        return tag

    return fill


def borrowed_build(*own: Path) -> Callable[..., environments.Environment]:
    """For `cut` and `replay`."""
    return partial(environments.build, fill=borrowing(*own))


def small_record(folder: Path, project: Path, version: str = "1.0.0", **said: str) -> Path:
    """The record of a release of a project, without a pinned scan."""
    commit_ = git.clean_commit(project)
    source, record = folder / "source", folder / "record"
    record.mkdir(parents=True)
    git.export(project, commit_.sha, source)
    wheels.build_wheel(source, version, commit_.committed_s, record)
    shutil.copyfile(project / LOCK, record / LOCK)
    (record / MANIFEST).write_text(to_json(compile_manifest(find_stages(), record / LOCK)))
    release = Release(
        line=".".join(version.split(".")[:2]), version=version, commit=commit_.sha, branch="main",
        cut_by="Ada Byron <ada@example.org>", cut_at="2026-11-21T10:00:00+00:00", python=sys.version.split()[0],
    )  # fmt: skip
    write_release(with_hashes(replace(release, **said), record), record)
    return record


def cut_small(folder: Path, project: Path, home: Path, *own: Path) -> Path:
    """Cuts and installs 1.0 of a project whose stages are not those of this checkout, without a pinned scan: the release
    compiles itself, in its environment with `own` wheels. Returns the record."""
    record = small_record(folder, project)
    (record / MANIFEST).unlink()
    environment = environments.build(record, home, fill=borrowing(*own))
    options = ("--output", str(record / MANIFEST), "--lock", str(record / LOCK), "--releases", str(folder))
    pinned.geomagic(environment, folder, "compile", *options)
    write_release(with_hashes(read_release(record), record), record)
    environments.copy_record(record, environment.folder)
    environments.activate(environment, home)
    return record


def in_environment(environment: environments.Environment, code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of Python in the environment of a release."""
    seen: Mapping[str, str] = environments.own_environment(os.environ) | env
    return subprocess.run(
        [str(environment.python), "-c", code], env=dict(seen), capture_output=True, text=True, check=False
    )
