"""What another environment has is taken from it only where it is, byte for byte, what the wheel says."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from geomagic_dagster.releases import checking, environments, libraries, sharing, taking, wheels
from geomagic_dagster.releases.installed import FOLDER
from geomagic_dagster.releases.wheels import Wheel

INFO = "toy-1.0.dist-info"
FILES = {
    "toy/__init__.py": "import sys\n\ndef main():\n    print(sys.prefix, sys.argv[1:])\n",
    "toy/data.bin": "0123456789",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\ntoy = toy:main\n",
}


def make_wheel(folder: Path, more: dict[str, str] | None = None) -> Path:
    path, rows = folder / "toy-1.0-py3-none-any.whl", []
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (FILES | (more or {})).items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(content)}\n")
        archive.writestr(f"{INFO}/RECORD", "".join([*rows, f"{INFO}/RECORD,,\n"]))
    return path


def make_environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


@pytest.fixture
def wheel(tmp_path) -> Path:
    return make_wheel(tmp_path)


@pytest.fixture
def other(tmp_path, wheel) -> Path:
    """An environment in which pip installed it."""
    environment = make_environment(tmp_path / "other")
    wheels.install_own(wheel, environment / "bin" / "python")
    return environment


@pytest.fixture
def new(tmp_path) -> Path:
    return make_environment(tmp_path / "with blanks" / "new")


def test_what_is_taken_is_what_pip_installs_and_lies_on_the_disk_once(wheel, other, new):
    assert taking.take(wheel, new, [other])
    assert checking.files_sha256(new, "toy") == checking.files_sha256(other, "toy")
    expected = {"toy": checking.files_sha256(other, "toy")}
    assert checking.differences(new, expected) == [] and not checking.wheel_differs(new, "toy", wheel)
    there, here = checking.site_packages(other), checking.site_packages(new)
    assert all((there / name).samefile(here / name) for name in FILES)
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(new / "bin" / "python"), "list", "--format", "json"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert {"name": "toy", "version": "1.0"} in json.loads(listed.stdout)


def test_its_commands_run_in_their_own_environment_whose_path_may_have_blanks(wheel, other, new):
    assert taking.take(wheel, new, [other])
    done = subprocess.run([str(new / "bin" / "toy"), "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{new} ['a b']\n"
    assert str(other).encode() not in (new / "bin" / "toy").read_bytes()


def test_it_stays_when_the_other_one_is_removed(wheel, other, new):
    assert taking.take(wheel, new, [other])
    expected = {"toy": checking.files_sha256(other, "toy")}
    shutil.rmtree(other)
    assert checking.differences(new, expected) == []
    change_a_byte(checking.site_packages(new))
    assert checking.differences(new, expected) == ["toy: toy/data.bin was changed"]


def change_a_byte(packages: Path) -> None:
    (packages / "toy" / "data.bin").write_text("0123456780")


def remove_a_file(packages: Path) -> None:
    (packages / "toy" / "data.bin").unlink()


def rewrite_the_list_too(packages: Path) -> None:
    (packages / "toy" / "__init__.py").write_text("raise SystemExit('other code')")
    record = packages / INFO / "RECORD"
    digest = checking.digest_of(packages / "toy" / "__init__.py")
    lines = [line for line in record.read_text().splitlines() if "__init__" not in line]
    record.write_text("\n".join([*lines, f"toy/__init__.py,sha256={digest},31"]) + "\n")


def remove_it_all(packages: Path) -> None:
    (packages / INFO).rename(packages / "gone")


@pytest.mark.parametrize("spoil", [change_a_byte, remove_a_file, rewrite_the_list_too, remove_it_all])
def test_nothing_is_taken_from_an_environment_that_is_not_what_the_wheel_says(wheel, other, new, spoil):
    spoil(checking.site_packages(other))
    assert not taking.take(wheel, new, [other])
    assert [path.name for path in checking.site_packages(new).iterdir()] == [] and not (new / "bin" / "toy").exists()


def test_what_one_has_not_another_one_has(wheel, other, new, tmp_path):
    whole = make_environment(tmp_path / "whole")
    assert taking.take(wheel, whole, [other])
    (checking.site_packages(other) / "toy" / "data.bin").unlink()
    assert taking.take(wheel, new, [other, whole])


def test_one_that_is_removed_in_the_middle_leaves_nothing(wheel, other, new, monkeypatch):
    link = sharing.link

    def until_it_is_gone(there: Path, here: Path) -> None:
        if there.name == "METADATA":
            raise FileNotFoundError(there)
        link(there, here)

    monkeypatch.setattr(sharing, "link", until_it_is_gone)
    assert not taking.take(wheel, new, [other])
    assert not [path for path in checking.site_packages(new).rglob("*") if path.is_file()]


def test_files_that_belong_elsewhere_are_left_to_pip(tmp_path, new):
    """As of numba, whose wheel packs a command, and sympy, whose wheel packs a page of a manual."""
    wheel = make_wheel(tmp_path, {"toy-1.0.data/scripts/toy-too": "#!python\nprint(1)\n"})
    other = make_environment(tmp_path / "other")
    wheels.install_own(wheel, other / "bin" / "python")
    assert not taking.take(wheel, new, [other])


# --- which wheels ---------------------------------------------------------------------------------


TORCH, NUMPY = Wheel("2.13.0+cpu", "torch.whl", "1" * 64), Wheel("2.4.6", "numpy.whl", "2" * 64)


def test_a_line_of_a_lock_is_the_wheel_that_others_were_given_for_it():
    known = [{"torch": TORCH, "numpy": NUMPY}, {"torch": TORCH, "numpy": Wheel("2.4.5", "old.whl", "3" * 64)}]
    lock = "# libraries\nNumPy==2.4.6\ntorch==2.13.0  # its build for this machine\nscipy==1.0\n"
    assert taking.chosen(lock, known) == {"numpy": NUMPY, "torch": TORCH}
    assert taking.chosen("torch==2.13\n", known) == {}


@pytest.mark.parametrize("line", ["numpy>=2", "numpy==2.4.6; python_version < '3'", "-r other.txt", "./a.whl"])
def test_a_lock_that_says_more_is_left_to_pip(line):
    assert taking.chosen(f"torch==2.13.0\n{line}\n", [{"torch": TORCH, "numpy": NUMPY}]) == {}


def test_where_others_were_given_different_builds_pip_chooses():
    others = [{"torch": TORCH}, {"torch": Wheel("2.13.0+cu130", "other.whl", "4" * 64)}]
    assert taking.chosen("torch==2.13.0\n", others) == {}


# --- what was compiled ----------------------------------------------------------------------------


ALONE = "import math\n\nimport numpy as np\nfrom numba import njit\n"


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        (ALONE, True),
        (f"{ALONE}from .camera import NEAR\n", False),
        (f"{ALONE}def late():\n    from geomagic_dagster.cv import camera\n", False),
        (f"{ALONE}import scipy.constants\n", False),
    ],
)
def test_machine_code_is_shared_where_nothing_else_decides_it(tmp_path, text, is_taken):
    names = ("kernels.f-1.py311.nbi", "kernels.f-1.py311.1.nbc", "kernels.cpython-311.pyc")
    for name in ("old", "new", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernels.py").write_text(text)
    for folder in ("old", "other"):
        (tmp_path / folder / "__pycache__").mkdir()
        for name in names:
            (tmp_path / folder / "__pycache__" / name).write_text(folder)
    os.remove(tmp_path / "other" / "kernels.py")
    os.link(tmp_path / "old" / "kernels.py", tmp_path / "other" / "kernels.py")
    (tmp_path / "other" / "__pycache__" / "kernels.g-9.py311.nbi").write_text("another index")
    old, other = tmp_path / "old", tmp_path / "other"
    sharing.link_shared(tmp_path / "new", [old, other], same_compiler=[old, other])
    taken = {path.name: path.read_text() for path in (tmp_path / "new" / "__pycache__").iterdir()}
    assert taken == dict.fromkeys(names if is_taken else names[2:], "old")


def test_machine_code_of_another_compiler_is_not_taken(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernels.py").write_text(ALONE)
    (tmp_path / "old" / "__pycache__").mkdir()
    (tmp_path / "old" / "__pycache__" / "kernels.f-1.py311.nbi").write_text("old")
    sharing.link_shared(tmp_path / "new", [tmp_path / "old"])
    assert not (tmp_path / "new" / "__pycache__").exists()


def test_two_environments_have_the_same_compiler_where_their_wheels_of_it_are_the_same(tmp_path):
    def environment(name: str, numpy: str) -> Path:
        entries = {each: {"version": "1", "file": "x.whl", "sha256": "5" * 64, "files_sha256": "6" * 64}
                   for each in ("numba", "llvmlite", "numpy")}  # fmt: skip
        entries["numpy"]["sha256"] = numpy
        folder = tmp_path / name / FOLDER
        folder.mkdir(parents=True)
        (folder / "environment-cp311.json").write_text(json.dumps({"distributions": entries}))
        return folder.parent

    one, same, another = environment("one", "7" * 64), environment("same", "7" * 64), environment("another", "8" * 64)
    assert libraries.have_same(sharing.COMPILER, one, same)
    assert not libraries.have_same(sharing.COMPILER, one, another)
    (another / FOLDER / "environment-cp311.json").write_text("damaged")
    assert not libraries.have_same(sharing.COMPILER, one, another)


def test_what_a_release_compiles_stays_in_its_environment():
    """Where a container or a person says that Python shall not, each process would compile a thousand modules again."""
    said = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/elsewhere", "PYTHONPATH": "/x", "PATH": "/bin"}
    seen = environments.own_environment(said)
    assert seen == {"PATH": "/bin", "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}


# --- words ----------------------------------------------------------------------------------------


PIP = """import sys
print("Collecting torch")
print("  Downloading torch-2.13.0.whl (190.2 MB)", flush=True)
print("ERROR: the disk is full", file=sys.stderr)
sys.exit({code})
"""


def test_what_is_downloaded_is_said_and_an_error_in_pips_words(tmp_path):
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text(PIP.format(code=0))
    env, said = os.environ | {"PYTHONPATH": str(tmp_path)}, list[str]()
    wheels.pip("wheel", env=env, say=said.append)
    assert said == ["Downloading torch-2.13.0.whl (190.2 MB)"]
    (tmp_path / "pip" / "__main__.py").write_text(PIP.format(code=1))
    with pytest.raises(wheels.PipFailed, match=r"ERROR: the disk is full$"):
        wheels.pip("wheel", env=env)
