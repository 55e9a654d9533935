"""Where the story of releases plays: a throwaway checkout, its own latest, its home, its processes.

Belongs here: making that place, changing its code, starting it, asking it. Does not belong here: what happens in
which order (story.py).

    <folder>/checkout/         a clone of this project, whose commits and releases/ are the story's own
    <folder>/checkout/.venv/   latest: the libraries of whoever tells the story, the code of the checkout
    <folder>/home/             GEOMAGIC_HOME
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomagic_dagster.drill.place import answers, free_ports, zip_folder

PORTS = ("web", "rooms", "intake", "metrics", "console")
PATIENCE_S = 1800.0
"""For whatever takes a minute on an idle machine: a busy one takes many times as long, and proves the same."""
PAGE_EVERY_S = 2.0
"""Between two looks at what a server has to work out."""
SIZE_WH, FRAMES = (96, 72), 16
"""Of a scan: each makes a whole package, with as little of everything as does."""
SMALLER = (
    ("geomagic_dagster/cv/package.py", "preview_width_px: int = Field(1280,", "preview_width_px: int = Field(320,"),
    ("geomagic_dagster/cv/package.py", "preview_height_px: int = Field(960,", "preview_height_px: int = Field(240,"),
    ("geomagic_dagster/cv/package.py", "top_max_px: int = Field(1280,", "top_max_px: int = Field(320,"),
    ("geomagic_dagster/cv/package.py", "plan_dpi: int = Field(150,", "plan_dpi: int = Field(50,"),
)
"""Pictures of the usual size cost more than all the rest of so small a scan; nothing that is proved hangs on them."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
"""The cores are for many uploads at once, not for the loops of one, which are short here."""
RUNS_AT_ONCE = "max_concurrent_runs: 2"
NOTHING_NEW_S = 900.0
"""Among so many uploads, the next package is there by then, however busy the machine is."""


class StoryFailed(AssertionError):
    """Something is not as the story tells it; the words say what was expected and what came."""


def expect(condition: object, expected: str, received: object) -> None:
    if not condition:
        raise StoryFailed(f"story: expected {expected}; got {received}")


class Site:
    """The throwaway place of one story."""

    def __init__(self, folder: Path, source: Path, wheels: Path | None = None) -> None:
        """Clones `source`, a git checkout without changes, into a folder that must not exist."""
        folder.mkdir(parents=True)
        self.folder, self.checkout, self.home = folder, folder / "checkout", folder / "home"
        if wheels is not None:  # nothing is downloaded that lies there
            wheels.mkdir(parents=True, exist_ok=True)
            (self.home / "releases").mkdir(parents=True)
            (self.home / "releases" / "wheels").symlink_to(wheels.absolute())
        _run(["git", "clone", "--quiet", "--no-hardlinks", str(source), str(self.checkout)])
        for record in (self.checkout / "releases").glob("[0-9]*"):  # the story has releases of its own
            shutil.rmtree(record)
        _without_releases(self.checkout / "workspace.yaml")
        _make_environment(self.checkout)
        for name, value in (("user.name", "Ada Lovelace"), ("user.email", "ada@example.org")):
            _run(["git", "config", name, value], self.checkout)
        for file, old, new in SMALLER:
            self.edit(file, old, new)
        more = f"max_concurrent_runs: {max(2, os.cpu_count() or 2) + 1}"  # one waits for its launch or its disk
        self.edit("dagster.yaml", RUNS_AT_ONCE, more)
        self.commit("The place of the story")
        self.ports: dict[str, int] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        os.environ |= {"GEOMAGIC_HOME": str(self.home), "DAGSTER_HOME": str(self.home / "dagster")}

    # --- code -------------------------------------------------------------------------------------

    def edit(self, file: str, old: str, new: str) -> None:
        """Changes the code of latest in one place."""
        path = self.checkout / file
        text = path.read_text()
        expect(text.count(old) == 1, f"{old!r} once in {file}", f"{text.count(old)} times; change the story with it")
        path.write_text(text.replace(old, new))

    def commit(self, message: str) -> str:
        _run(["git", "add", "--all"], self.checkout)
        _run(["git", "commit", "--quiet", "--allow-empty", "--no-verify", "-m", message], self.checkout)
        return _run(["git", "rev-parse", "HEAD"], self.checkout).strip()

    def geomagic(self, *arguments: str, is_refused: bool = False) -> str:
        """`geomagic ...` of the checkout; what it printed. `is_refused`: it has to refuse, and say why."""
        done = subprocess.run(
            [self.python, "-m", "geomagic_dagster.cli", *arguments],
            cwd=self.checkout, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = (done.stdout + done.stderr).strip()
        expect((done.returncode != 0) == is_refused, f"`geomagic {' '.join(arguments)}` to work", said[-2000:])
        return done.stderr.strip() if is_refused else done.stdout.strip()

    @property
    def python(self) -> Path:
        return self.checkout / ".venv" / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        ours = ("GEOMAGIC_", "DAGSTER_", "PYTHONPATH", "VIRTUAL_ENV", "DJANGO_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return ONE_THREAD | kept | {"GEOMAGIC_HOME": str(self.home), "DAGSTER_HOME": str(self.home / "dagster")}

    # --- processes --------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        """The whole installation, as `geomagic ui` starts it."""
        self.home.mkdir(exist_ok=True)
        options = [f"--{'' if name == 'web' else name + '-'}port={port}" for name, port in self.ports.items()]
        command = [str(self.python), "-m", "geomagic_dagster.cli", "ui", *options]
        with open(self.folder / "installation.log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=self.checkout, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            for name, path in (("web", "server_info"), ("intake", "health"), ("console", "healthz")):
                wait_for(lambda name=name, path=path: answers(self.url(name, path)), PATIENCE_S, f"{name} to answer")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def end_warm(self, line: str) -> None:
        """Kills a release's warm processes, as a machine that restarts does: what comes after them reads the disk."""
        mark = f"GEOMAGIC_HOME={self.home}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                is_ours = mark in (folder / "environ").read_bytes()
            except OSError:  # it has ended meanwhile, or is not ours
                continue
            if is_ours and b"geomagic_dagster.launching.starter" in words and line.encode() in words:
                os.kill(int(folder.name), signal.SIGKILL)

    def url(self, name: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[name]}/{path}"

    def locations(self) -> dict[str, str]:
        """Every code location that the webserver shows, with what it says where it could not be loaded."""
        query = """{ workspaceOrError { ... on Workspace { locationEntries { name
            locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
        entries = self.graphql(query)["workspaceOrError"]["locationEntries"]
        return {
            each["name"]: (each["locationOrLoadError"] or {}).get("message", "loaded")
            if (each["locationOrLoadError"] or {}).get("__typename") != "RepositoryLocation" else "loaded"
            for each in entries
        }  # fmt: skip

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url("web", "graphql"), body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    # --- scans ------------------------------------------------------------------------------------

    def rooms(self, number: int) -> list[Path]:
        """Small made-up rooms, each a zip that can be uploaded under any name."""
        from geomagic_dagster.scans.formats import canonical
        from geomagic_dagster.scans.made_up import PHONE, make_room, scan_room

        folder = self.folder / "rooms"
        folder.mkdir(exist_ok=True)
        made = []
        for seed in range(number):
            path = folder / f"room-{seed}.zip"
            if not path.exists():
                scan = scan_room(make_room(seed), PHONE.but(frames=FRAMES, size_wh=SIZE_WH)).scan
                canonical.write(replace(scan, name="room"), folder / f"room-{seed}")
                zip_folder(folder / f"room-{seed}", path)
            made.append(path)
        return made

    def upload(self, room: Path, name: str) -> None:
        """Sends a room to the intake under a name; what could not be taken in is an error."""
        request = urllib.request.Request(self.url("intake", f"scans/{name}.zip"), room.read_bytes(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                expect(answer.status < 300, "the upload taken in", answer.status)
        except urllib.error.HTTPError as error:
            raise StoryFailed(f"upload {name}: expected it taken in; got {error.code}: {error.read()!r}") from error

    def waiting(self) -> int:
        """How many uploads are in the inbox, those that a run works on among them."""
        return sum(1 for _ in (self.home / "inbox").glob("[!.]*"))

    def package(self, name: str) -> Path:
        return self.home / "packages" / name

    def wait_for_packages(self, names: list[str]) -> None:
        """Until every one of them has its package; so long as they keep coming, it may take its time."""
        missing = list(names)

        def is_another_there() -> bool:
            known = len(missing)
            missing[:] = [name for name in missing if not (self.package(name) / "manifest.json").is_file()]
            return len(missing) < known

        while missing:
            wait_for(
                is_another_there, NOTHING_NEW_S,
                lambda: f"a package more; {len(missing)} of {len(names)} are missing, {', '.join(missing[:5])} first",
            )  # fmt: skip


def wait_for(
    condition: Callable[[], object], seconds: float, what: str | Callable[[], str], every_s: float = 0.1
) -> Any:
    """What the condition gives, once it gives something. `every_s`: more where the asking itself costs something."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if value := condition():
            return value
        time.sleep(every_s)
    raise StoryFailed(
        f"story: expected {what if isinstance(what, str) else what()} within {seconds:.0f} s; see the log"
    )


def _make_environment(checkout: Path) -> None:
    """A light environment: a path file leads to the checkout's code first, then to the libraries that are here."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(checkout / ".venv")])
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = list({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()})
    paths = [str(checkout), *sorted(packages)]
    (checkout / ".venv" / "lib" / version / "site-packages" / "story.pth").write_text("\n".join(paths) + "\n")


def _without_releases(workspace: Path) -> None:
    """latest alone: the story's home has none of the project's own releases."""
    text = workspace.read_text()
    entries = re.split(r"(?m)^(?=  - )", text)
    workspace.write_text("".join(each for each in entries if "executable_path" not in each))


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"`{' '.join(command[:4])}` to work", (done.stdout + done.stderr)[-2000:])
    return done.stdout
