"""`geomagic weights ...`: what a person reads, and what it leaves in the store."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geomagic_dagster.cli import app
from geomagic_dagster.resources import weights as module
from tests.releases.records import write_record


@pytest.fixture
def geomagic(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMAGIC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path):
        return CliRunner().invoke(app, list(map(str, arguments)))

    return call


@pytest.fixture
def net(tmp_path) -> Path:
    path = tmp_path / "Glass net-2.pt"
    path.write_bytes(bytes(range(256)) * 100)
    return path


def digest_of(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_added_and_the_line_to_paste_is_all_that_is_printed(geomagic, net, tmp_path):
    done = geomagic("weights", "add", net)
    assert (done.exit_code, done.stdout) == (0, f'weights={{"glass_net_2": "{digest_of(net)}"}}\n')
    assert done.stderr == f"0.03 MB in {tmp_path / 'home' / 'store' / 'weights'}. Into the @stage:\n"
    assert geomagic("weights", "add", net, "--name", "net").stdout == f'weights={{"net": "{digest_of(net)}"}}\n'
    [file] = (tmp_path / "home" / "store" / "weights").iterdir()
    assert file.read_bytes() == net.read_bytes()
    assert geomagic("weights", "add", tmp_path / "no.pt").exit_code == 2


def test_the_line_is_one_that_a_stage_takes(geomagic, net):
    from geomagic_dagster.cv.stage import minutes, stage

    line = geomagic("weights", "add", net).stdout
    declared = eval(f"stage(version='1', timeout=minutes(1), {line.strip()})", {"stage": stage, "minutes": minutes})
    assert declared(lambda scan: scan).__stage__["weights"] == {"glass_net_2": digest_of(net)}


def test_the_list_says_who_uses_what_and_what_is_missing(geomagic, net, tmp_path):
    missing = "sha256:" + 64 * "a"
    write_record(tmp_path / "releases" / "1.1", "1.1.1", glass={"net": digest_of(net)})
    write_record(tmp_path / "releases" / "1.1" / "history" / "1.1.0", "1.1.0", glass={"net": missing})
    geomagic("weights", "add", net)
    other = tmp_path / "other.pt"
    other.write_bytes(b"a trial")
    geomagic("weights", "add", other)
    done = geomagic("weights", "list", "--checkout", tmp_path)
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
    assert rows[1:4] == [
        [missing[7:19], "MISSING", "no", "1.1.0 glass: net"],
        [digest_of(net)[7:19], "0.03", "yes", "yes", "1.1.1 glass: net"],
        [digest_of(other)[7:19], "0.00", "yes", "yes", "nobody"],
    ]
    assert done.exit_code == 0


def test_the_check_reads_every_byte_and_names_what_is_wrong(geomagic, net, tmp_path):
    write_record(tmp_path / "releases" / "1.1", "1.1.0", glass={"net": digest_of(net)})
    done = geomagic("weights", "check", "--checkout", tmp_path)
    assert done.exit_code == 1
    assert f"1.1.0 glass: net: expected {digest_of(net)} in " in done.stderr
    assert "geomagic weights add FILE" in done.stderr and "1 of 1 files are missing or not what" in done.stderr
    geomagic("weights", "add", net)
    done = geomagic("weights", "check", "--checkout", tmp_path)
    assert (done.exit_code, done.stdout) == (0, "1 files, each as its digest says\n")
    [file] = (tmp_path / "home" / "store" / "weights").iterdir()
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    module._verified.clear()
    done = geomagic("weights", "check", "--checkout", tmp_path)
    assert done.exit_code == 1 and "expected the bytes that the digest names; got others (sha256 " in done.stderr
    assert geomagic("weights", "add", net).exit_code == 0
    assert geomagic("weights", "check", "--checkout", tmp_path).exit_code == 0


def test_a_store_that_is_away_is_one_sentence(geomagic, net, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMAGIC_WEIGHTS", f"unreliable://{tmp_path}/far/weights")
    assert geomagic("weights", "add", net).exit_code == 0
    Path(tmp_path / "far.away").touch()
    for arguments in (("add", net), ("list", "--checkout", tmp_path)):
        done = geomagic("weights", *arguments)
        assert done.exit_code == 2 and "connection refused" in done.stderr and "Traceback" not in done.stderr
    assert geomagic("weights", "check", "--checkout", tmp_path).exit_code == 2


# --- releases -------------------------------------------------------------------------------------


def test_a_release_is_installed_only_with_its_weights(geomagic, net, tmp_path, monkeypatch):
    """They are fetched from the store elsewhere before anything else is done."""
    built = []

    class Enough(Exception):
        pass

    def install(record, home, **options):
        built.append(record)
        raise Enough

    monkeypatch.setattr("geomagic_dagster.releases.environments.install", install)
    monkeypatch.setenv("GEOMAGIC_WEIGHTS", f"unreliable://{tmp_path}/far/weights")
    write_record(tmp_path / "releases" / "1.1", "1.1.0", glass={"net": digest_of(net)})
    done = geomagic("release", "install", "1.1", "--checkout", tmp_path)
    assert done.exit_code == 2 and not built
    assert done.stderr.startswith(
        "release 1.1.0: expected its weights, each as its digest says; got stage glass, weights"
    )
    assert done.stderr.endswith("geomagic weights add FILE. Then say it again.\n")
    geomagic("weights", "add", net)
    copy = tmp_path / "home" / "cache" / "weights" / digest_of(net)[7:]
    copy.unlink()  # it was added on another machine
    assert isinstance(geomagic("release", "install", "1.1", "--checkout", tmp_path).exception, Enough)
    assert built and copy.read_bytes() == net.read_bytes()


def test_verifying_a_release_reads_its_weights(geomagic, net, tmp_path):
    write_record(tmp_path / "releases" / "1.1", "1.1.0", glass={"net": digest_of(net)})
    done = geomagic("release", "verify", "1.1", "--checkout", tmp_path)
    assert done.exit_code == 2 and "got stage glass, weights net: expected sha256:" in done.stderr
    geomagic("weights", "add", net)
    done = geomagic("release", "verify", "1.1", "--checkout", tmp_path)
    assert done.exit_code == 0 and "1.1.0: its weights are as their digests say (1 files)" in done.stdout
