from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest
from dagster import DagsterInstance, ReexecutionOptions, execute_job, reconstructable
from dagster._core.test_utils import instance_for_test

from geomagic_dagster.cv.stage import StageError, find_stages
from geomagic_dagster.jobs.process_scan import process_scan_job
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan
from tests.toy_stages.stages.nouns import Mood


@pytest.fixture
def toys(tmp_path, monkeypatch) -> Toys:
    monkeypatch.setattr("geomagic_dagster.guardrails.retries.FIRST_DELAY_S", 0.0)
    return Toys(tmp_path / "home")


@pytest.fixture(scope="module")
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def calls(tmp_path, monkeypatch) -> Path:
    """Counts the calls of the stage `mood`."""
    path = tmp_path / "calls"
    path.write_text("")
    monkeypatch.setenv("TOY_CALLS", str(path))
    return path


def metadata(result, step: str) -> dict:
    """What Dagster shows of the output of a step."""
    events = [e for e in result.events_for_node(step) if e.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in events[-1].event_specific_data.metadata.items()}


def failure_words(result, step: str) -> str:
    return next(
        e for e in result.events_for_node(step) if e.event_type_value == "STEP_FAILURE"
    ).step_failure_data.user_failure_data.description


def test_an_upload_becomes_a_package_and_leaves_the_inbox(toys, instance):
    upload = write_toy_scan(toys.inbox / "Küche 2. Stock")
    result = toys.process(upload, instance)
    assert result.success
    package = Path(toys.places.packages) / "Küche 2. Stock"
    assert (package / "letter.txt").read_text().startswith("Küche 2. Stock: ")
    assert sorted(path.name for path in package.iterdir()) == ["empty.bin", "letter.txt"]
    record = json.loads((package.parent / "Küche 2. Stock.run.json").read_text())
    assert (record["run_id"], record["release"]) == (result.run_id, "latest")
    assert not upload.exists()
    assert (Path(toys.places.done) / "Küche 2. Stock" / "scan.json").is_file()
    assert metadata(result, "publish") == {
        "room": "http://127.0.0.1:3001/packages/K%C3%BCche%202.%20Stock/",
        "package": str(package),
        "upload": str(Path(toys.places.done) / upload.name),
    }


def test_outputs_show_numbers_settings_cost_and_a_small_picture(toys, instance):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance)
    shown = metadata(result, "shades")
    assert 0.4 < shown["brightest"] < 0.6
    assert shown["settings"] == {"gain": 1.0, "keep": 3}
    assert shown["reused"] is False
    assert shown["seconds"] > 0
    assert 10 < shown["peak_memory_mb"] < 10_000
    assert shown["thumbnail"].startswith("![shades](data:image/jpeg;base64,")
    assert len(shown["thumbnail"]) < 40_000
    assert metadata(result, "scan")["source_format"] == "canonical"
    assert metadata(result, "scan")["frames"] == 5


def test_twice_gives_the_same_bytes_and_the_second_time_reuses(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")  # not in the inbox: it stays where it is
    first = toys.process(upload, instance)
    before = toys.artefacts()
    second = toys.process(upload, instance)
    assert first.success
    assert second.success
    assert toys.artefacts() == before
    assert [metadata(second, step)["reused"] for step in ("scan", "shades", "mood", "package")] == [True] * 4
    assert "seconds" not in metadata(second, "mood")
    assert calls.read_text() == "x"
    assert upload.exists()


def test_recomputation_can_be_forced_and_compares_the_bytes(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    before = toys.artefacts()
    again = toys.process(upload, instance, tags={"geomagic/recompute": "true"})
    assert again.success
    assert metadata(again, "mood")["reused"] is False
    assert calls.read_text() == "xx"
    assert toys.artefacts() == before


def test_a_stage_that_gives_other_bytes_the_second_time_is_found_out(toys, instance, monkeypatch):
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    monkeypatch.setattr(
        "tests.toy_stages.stages.mood.Mood", lambda shades, score: Mood(shades=shades, score=score + 1e-9)
    )
    again = toys.process(upload, instance, tags={"geomagic/recompute": "true"})
    assert not again.success
    assert "artefact mood/" in failure_words(again, "mood")
    assert "gave different bytes" in failure_words(again, "mood")


def test_other_settings_make_another_artefact_downstream_too(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")
    one, two = (toys.process(upload, instance, mood={"passing_failures": n}) for n in (0, 1))
    for step, same in (("shades", True), ("mood", False), ("package", False)):
        assert (metadata(one, step)["identity"] == metadata(two, step)["identity"]) is same


def test_a_passing_failure_is_retried(toys, instance, calls):
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance, mood={"passing_failures": 2})
    assert result.success
    assert calls.read_text() == "xxx"


def test_after_its_retries_a_passing_failure_ends_the_run_and_the_upload_stays(toys, instance, calls):
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance, mood={"passing_failures": 9})
    assert not result.success
    assert calls.read_text() == "xxx"
    assert upload.exists()
    assert not Path(toys.places.quarantine).exists()


def test_a_scan_rejected_by_a_stage_is_not_retried_and_goes_to_quarantine_with_the_reason(toys, instance, calls):
    upload = write_toy_scan(toys.inbox / "toy")
    result = toys.process(upload, instance, mood={"rejects": True})
    sentence = "mood: expected a merry room; got a sad one. Scan another room."
    assert not result.success
    assert calls.read_text() == "x"
    assert failure_words(result, "mood") == sentence
    assert not upload.exists()
    aside = Path(toys.places.quarantine) / "toy"
    assert (aside / "reason.txt").read_text() == sentence + "\n"
    assert (aside / "toy" / "scan.json").is_file()
    assert not Path(toys.places.packages).exists()


def test_a_full_disk_is_tried_again_and_then_said_in_one_sentence(toys, instance, calls, monkeypatch):
    upload = write_toy_scan(toys.inbox / "toy")
    tries = []

    def fsync(descriptor: int) -> None:
        tries.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("geomagic_dagster.resources.artefact_files.os.fsync", fsync)
    result = toys.process(upload, instance)
    assert not result.success
    assert len(tries) == 3
    assert re.match(
        r"artefact scan/\w+ in .*/store: expected room to write it; got a full disk\. Free some space there, or point "
        r"GEOMAGIC_HOME at a larger disk\.$",
        failure_words(result, "scan"),
    )
    assert toys.artefacts() == {}
    assert upload.exists()


def test_what_is_no_scan_goes_to_quarantine(toys, instance):
    upload = toys.inbox / "holiday"
    upload.mkdir(parents=True)
    (upload / "beach.txt").write_text("sun")
    assert not toys.process(upload, instance).success
    reason = (Path(toys.places.quarantine) / "holiday" / "reason.txt").read_text()
    assert "holiday: expected a room scan; got a folder of no known format" in reason
    assert not upload.exists()


def test_a_rejected_scan_from_outside_of_the_inbox_is_not_touched(toys, instance):
    upload = write_toy_scan(toys.corpus / "toy")
    assert not toys.process(upload, instance, mood={"rejects": True}).success
    assert upload.exists()
    assert not Path(toys.places.quarantine).exists()


def test_an_upload_whose_image_is_cut_short_is_rejected_with_its_name(toys, instance):
    upload = write_toy_scan(toys.inbox / "toy")
    image = upload / "color" / "000001.png"
    image.write_bytes(image.read_bytes()[:100])
    assert not toys.process(upload, instance).success
    assert "000001.png" in (Path(toys.places.quarantine) / "toy" / "reason.txt").read_text()


def test_two_uploads_of_one_name_never_take_each_others_package(toys, instance):
    for seed in (1, 2):
        assert toys.process(write_toy_scan(toys.inbox / "toy", seed=seed), instance).success
    folders = sorted(path.name for path in Path(toys.places.packages).iterdir() if path.is_dir())
    assert folders[0] == "toy"
    assert len(folders) == 2
    assert len(folders[1]) == len("toy-12345678")
    assert sorted(path.name for path in Path(toys.places.done).iterdir()) == ["toy", "toy-2"]
    assert toys.process(write_toy_scan(toys.inbox / "toy", seed=2), instance).success
    assert len([path for path in Path(toys.places.packages).iterdir() if path.is_dir()]) == 2


def test_a_corrupt_artefact_is_set_aside_and_made_anew(toys, instance, calls):
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    before = toys.artefacts()
    damaged = next(Path(toys.places.store_url).glob("artefacts/mood/*/mood.shades.depth_m_bhw.npy"))
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    result = toys.process(upload, instance)
    assert result.success
    assert [metadata(result, step)["reused"] for step in ("shades", "mood", "package")] == [True, False, True]
    assert toys.artefacts() == before
    assert len(list(Path(toys.places.store_url).glob("corrupt/mood/*"))) == 1


def test_a_run_without_a_stage_that_packs_is_refused():
    with pytest.raises(StageError, match="expected a stage 'package', whose files are published; got shades"):
        process_scan_job(
            [stage for stage in find_stages("tests.toy_stages.stages") if stage.name == "shades"], "latest"
        )


# --- with a process for each step, as the daemon runs it --------------------------------------------


def toy_job():
    """The job for other processes; $TOY_HOME says where."""
    import os

    return Toys(Path(os.environ["TOY_HOME"])).defs.resolve_job_def("process_scan")


@pytest.fixture
def in_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def run(upload: Path, instance: DagsterInstance, mood: dict | None = None, **options):
        config = {"ops": {"scan": {"config": {"upload": str(upload)}}, "mood": {"config": mood or {}}}}
        config["execution"] = {"config": {"start_method": {"forkserver": {"preload_modules": ["dagster"]}}}}
        return execute_job(reconstructable(toy_job), instance=instance, run_config=config, **options)

    return run


@pytest.mark.slow
def test_each_step_in_its_process_retries_rejects_and_goes_on_from_a_failure(toys, calls, in_processes):
    with instance_for_test() as instance:
        upload = write_toy_scan(toys.inbox / "toy")
        failed = in_processes(upload, instance, mood={"passing_failures": 4})
        assert not failed.success
        assert calls.read_text() == "xxx"
        assert upload.exists()
        resumed = in_processes(
            upload,
            instance,
            mood={"passing_failures": 4},
            reexecution_options=ReexecutionOptions.from_failure(failed.run_id, instance),
        )
        assert resumed.success
        assert calls.read_text() == "xxxxx"
        started = {event.step_key for event in resumed.all_events if event.event_type_value == "STEP_START"}
        assert started == {"mood", "package", "publish"}
        assert not upload.exists()

        sad = write_toy_scan(toys.inbox / "sad", seed=3)
        assert not in_processes(sad, instance, mood={"rejects": True}).success
        assert calls.read_text() == "xxxxxx"
        assert (
            (Path(toys.places.quarantine) / "sad" / "reason.txt").read_text().startswith("mood: expected a merry room")
        )
