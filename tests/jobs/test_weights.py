"""A stage with a trained network in whole runs: as op and as asset, without its file, with another, with the store away."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dagster import DagsterInstance

from geomagic_dagster.cv.stage import StageError
from geomagic_dagster.drill.unreliable import SILENT
from geomagic_dagster.guardrails import deadlines
from geomagic_dagster.guardrails.failures import Unavailable
from geomagic_dagster.releases.dark_check import Interpreter, compare, interpreter
from geomagic_dagster.releases.digest import digest_scan
from geomagic_dagster.resources.reuse import trusted
from geomagic_dagster.resources.weights import WeightsMissing, WeightStore
from tests.conftest import REPOSITORY
from tests.toy_stages.installation import Toys
from tests.toy_stages.networks import digest_of, stages_of, trained, write_net
from tests.toy_stages.scans import write_toy_scan


@pytest.fixture(autouse=True)
def retries_at_once(monkeypatch):
    monkeypatch.setattr("geomagic_dagster.guardrails.retries.FIRST_DELAY_S", 0.0)


@pytest.fixture(scope="module")
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    return write_net(tmp_path_factory.mktemp("net") / "net.pt")


@pytest.fixture(scope="module")
def package(net, tmp_path_factory):
    with trained(tmp_path_factory.mktemp("code"), digest_of(net)) as name:
        yield name


@pytest.fixture
def toys(tmp_path, package, retries_at_once) -> Toys:
    return Toys(tmp_path / "home", package=package)


@pytest.fixture
def calls(tmp_path, monkeypatch) -> Path:
    """Counts the calls of the stage before the network."""
    path = tmp_path / "calls"
    path.write_text("")
    monkeypatch.setenv("TOY_CALLS", str(path))
    return path


def failure(result, step: str) -> tuple[str, str, str]:
    """(kind, word, sentence) of a step's failure."""
    [event] = [e for e in result.events_for_node(step) if e.event_type_value == "STEP_FAILURE"]
    data = event.step_failure_data.user_failure_data
    return data.metadata["failure_kind"].value, data.metadata["failure"].value, data.description


def retries(result, step: str) -> int:
    return sum(e.event_type_value == "STEP_UP_FOR_RETRY" for e in result.events_for_node(step))


def guessed(toys: Toys) -> dict:
    """The record of the one artefact of the network."""
    [record] = [content for name, content in toys.artefacts().items() if re.fullmatch("guess/.*/artefact.json", name)]
    return json.loads(record)


# --- as it should be ------------------------------------------------------------------------------


def test_a_network_runs_as_op_and_as_asset_with_the_file_of_its_digest_and_says_so(toys, instance, net):
    toys.places.weights().add(net)
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance)
    assert result.success
    record = guessed(toys)
    assert record["weights"] == {"net": digest_of(net)}
    assert record["inputs"].keys() == {"look"}
    assert "torch" in record["libraries"]
    [output] = [e for e in result.events_for_node("guess") if e.event_type_value == "STEP_OUTPUT"]
    assert output.event_specific_data.metadata["weights"].value == {"net": digest_of(net)}
    made = toys.artefacts()
    assert not any(b'"weights"' in content for name, content in made.items() if name.startswith("look/"))
    write_toy_scan(toys.corpus / "toy")
    assert toys.materialize("toy", instance).success
    assert toys.artefacts() == made, "the asset took the result of the op"
    again = toys.materialize("toy", instance, tags={"geomagic/recompute": "true"})
    assert again.success and toys.artefacts() == made, "the same bytes"


def test_other_weights_are_another_result_and_nothing_else_is_made_anew(toys, instance, net, tmp_path):
    other = write_net(tmp_path / "other.pt", bias=0.25)
    for each in (net, other):
        toys.places.weights().add(each)
    upload = write_toy_scan(toys.corpus / "toy")
    assert toys.process(upload, instance).success
    with trained(tmp_path / "code", digest_of(other)) as name:
        assert Toys(tmp_path / "home", package=name).process(upload, instance).success
    records = [json.loads(content) for name, content in toys.artefacts().items() if re.fullmatch("guess/.*json", name)]
    assert {record["weights"]["net"] for record in records} == {digest_of(net), digest_of(other)}
    first, second = sorted(record["numbers"]["warmth"] for record in records)
    assert second - first == pytest.approx(0.25)


def test_a_corrupt_result_is_made_anew_with_the_weights_that_made_it(toys, instance, net, package):
    toys.places.weights().add(net)
    assert toys.process(write_toy_scan(toys.inbox / "toy"), instance).success
    before = toys.artefacts()
    [damaged] = Path(toys.places.store_url).glob("artefacts/guess/*/*.npy")
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    log, asked_by = logging.getLogger("test"), stages_of(package)["package"]
    trusted(asked_by, "guess", damaged.parent.name, toys.store, log, toys.places.weights())
    assert toys.artefacts() == before


NO_TORCH = """
import os, sys
from pathlib import Path
from dagster import DagsterInstance
from tests.toy_stages.installation import Toys
toys = Toys(Path(sys.argv[1]), package=sys.argv[2])
with DagsterInstance.ephemeral() as instance:
    result = toys.process(Path(sys.argv[3]), instance)
print(result.success, "torch" in sys.modules)
"""


def test_the_process_of_the_run_never_loads_torch(toys, net, package, tmp_path):
    toys.places.weights().add(net)
    upload = write_toy_scan(toys.corpus / "toy")
    code = Path(sys.modules[package].__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{code}"}
    command = [sys.executable, "-c", NO_TORCH, str(tmp_path / "home"), package, str(upload)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["True False"], done.stderr[-3000:]


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_missing_file_ends_the_run_before_its_first_stage_and_the_upload_waits_for_it(toys, instance, net, calls):
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance)
    assert not result.success
    assert failure(result, "scan") == (
        "permanent",
        "missing",
        f"stage guess, weights net: expected {digest_of(net)} in {toys.places.store_url}/weights; got no such file. "
        "Put it there on a machine that has it: geomagic weights add FILE.",
    )
    assert retries(result, "scan") == 0
    assert calls.read_text() == "" and toys.artefacts() == {}
    assert upload.exists(), "it is taken up again"
    toys.places.weights().add(net)
    assert toys.process(upload, instance).success
    assert calls.read_text() == "l"


def test_an_asset_whose_file_is_missing_says_the_same(toys, instance, net):
    write_toy_scan(toys.corpus / "toy")
    result = toys.materialize("toy", instance)
    kind, word, sentence = failure(result, "latest__guess")
    assert (kind, word, retries(result, "latest__guess")) == ("permanent", "missing", 0)
    assert "geomagic weights add FILE" in sentence


def test_a_changed_byte_ends_the_run_as_corrupt_with_the_next_command(toys, instance, net, calls):
    path = toys.places.weights().path(toys.places.weights().add(net))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance)
    kind, word, sentence = failure(result, "scan")
    assert (kind, word, retries(result, "scan"), calls.read_text()) == ("permanent", "corrupt", 0, "")
    assert "expected the bytes that the digest names; got others (sha256 " in sentence
    assert sentence.endswith("Put the right file in its place: geomagic weights add FILE.")


def test_a_byte_that_changes_while_the_run_is_under_way_never_reaches_the_network(toys, instance, net, package):
    """The step's own process looks again, whoever looked before."""
    path = toys.places.weights().path(toys.places.weights().add(net))
    write_toy_scan(toys.corpus / "toy")
    toys.materialize("toy", instance)
    [record] = Path(toys.places.store_url).glob("artefacts/guess/*/artefact.json")
    toys.store.set_aside("guess", record.parent.name)
    path.chmod(0o644)
    path.write_bytes(write_net(path.with_name("other"), bias=9.0).read_bytes())
    os.utime(path, ns=(1, 1))
    assert failure(toys.materialize("toy", instance), "latest__guess")[:2] == ("permanent", "corrupt")


def test_a_name_that_is_not_declared_is_a_mistake_in_the_stage(toys, instance, net):
    toys.places.weights().add(net)
    upload = write_toy_scan(toys.inbox / "toy")
    job = toys.defs.resolve_job_def("process_scan")
    config = {"ops": {"scan": {"config": {"upload": str(upload)}}, "guess": {"config": {"ask_for": "nut"}}}}
    result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    kind, word, sentence = failure(result, "guess")
    assert (kind, word, retries(result, "guess")) == ("bug", "stage_error", 0)
    assert "stage guess: expected weights that its @stage declares (net); got weights('nut')" in sentence


@pytest.fixture
def far(tmp_path, package, net, retries_at_once) -> tuple[Toys, Path]:
    """(an installation whose weights lie elsewhere and are not on this machine yet, the file that cuts the wire)"""
    url = f"unreliable://{tmp_path}/far/weights"
    WeightStore(url, tmp_path / "another machine").add(net)
    return Toys(tmp_path / "home", package=package, weights_url=url), tmp_path / "far.away"


def test_a_store_that_is_away_is_asked_again_and_the_run_goes_on(far, instance, calls, monkeypatch):
    toys, away = far
    away.touch()
    asked = []
    fetch = WeightStore.fetch

    def back_the_second_time(self, wanted, *rest):
        asked.append(wanted)
        if len(asked) == 2:
            away.unlink()
        fetch(self, wanted, *rest)

    monkeypatch.setattr(WeightStore, "fetch", back_the_second_time)
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance)
    assert result.success and retries(result, "scan") == 1 and calls.read_text() == "l"
    away.touch()
    assert toys.process(write_toy_scan(toys.inbox / "next", seed=2), instance).success, "it is on this machine now"


def test_a_store_that_stays_away_is_a_passing_failure(far, instance, calls):
    toys, away = far
    away.touch()
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance)
    kind, word, sentence = failure(result, "scan")
    assert (kind, word, retries(result, "scan"), calls.read_text()) == ("passing", "unreachable", 2, "")
    assert "stage guess, weights net (sha256:" in sentence and "connection refused" in sentence
    assert upload.exists()


def test_a_store_that_falls_silent_is_waited_for_no_longer_than_its_deadline(far, instance, calls, monkeypatch):
    toys, away = far
    away.with_suffix(SILENT).touch()
    short = replace(deadlines.weights_deadline(), seconds=0.5)
    monkeypatch.setattr("geomagic_dagster.resources.weights.weights_deadline", lambda: short)
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance)
    kind, word, sentence = failure(result, "scan")
    assert (kind, word, retries(result, "scan"), calls.read_text()) == ("passing", "timeout", 2, "")
    assert re.fullmatch(
        r"stage guess, weights net \(sha256:\w+\.\.\. in unreliable://.*\): expected all of its bytes within 0.5 s; "
        r"got a store that did not send them\. It is tried again; if it stays, look at the store and at the network "
        r"between\.",
        sentence,
    )
    assert upload.exists()
    assert list(toys.places.weights().here.glob(".*")) == [], "nothing half is left"


def test_the_deadline_of_the_scan_holds_around_that_of_its_weights(far):
    far[1].with_suffix(SILENT).touch()
    with pytest.raises(Unavailable, match=r"within 0.2 s, all that was left for the scan as a whole; got a store"):
        far[0].places.weights().fetch({"sha256:" + "0" * 64: "stage guess"}, 0.2)


# --- beside other releases ------------------------------------------------------------------------


def test_a_dark_check_gives_both_sides_the_same_files(package, net, tmp_path):
    store = WeightStore(str(tmp_path / "weights"), tmp_path / "cache")
    scan, stages = write_toy_scan(tmp_path / "toy"), stages_of(package).values()
    with pytest.raises(WeightsMissing, match="stage guess, weights net"):
        digest_scan(scan, stages, weights=store)
    with pytest.raises(StageError, match="got nobody"):
        digest_scan(scan, stages)
    store.add(net)
    first, second = (digest_scan(scan, stages, weights=store) for _ in range(2))
    assert compare(first, second).is_same and len(first["stages"]) == 4
    for each in (interpreter("latest", tmp_path, store.here), interpreter("1.0", tmp_path, store.here)):
        assert each._environment()["GEOMAGIC_WEIGHTS"] == str(tmp_path / "weights")
    assert "GEOMAGIC_WEIGHTS" not in Interpreter("x", Path("x"))._environment()
