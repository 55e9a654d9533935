"""Feature flags from the tag of a run to a stage and into its result's record, as op and as asset."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from dagster import DagsterInstance

from geomagic_dagster.cv.stage import find_stages
from geomagic_dagster.guardrails.tags import flags_in, route_in
from geomagic_dagster.resources.reuse import trusted
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

ON = {"geomagic/flags": "dimmer"}


@pytest.fixture(scope="module")
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def toys(tmp_path) -> Toys:
    return Toys(tmp_path / "home")


def output(result, step: str) -> dict:
    events = [e for e in result.events_for_node(step) if e.event_type_value in ("STEP_OUTPUT", "ASSET_MATERIALIZATION")]
    metadata = [getattr(e.event_specific_data, "metadata", None) or e.materialization.metadata for e in events]
    return {name: value.value for each in metadata for name, value in each.items()}


def record(toys: Toys, stage: str, identity: str) -> dict:
    return json.loads(toys.artefacts()[f"{stage}/{identity}/artefact.json"])


def test_a_flag_changes_its_stage_and_what_comes_after_and_says_so_everywhere(toys, instance):
    upload = write_toy_scan(toys.corpus / "toy")
    off, on = toys.process(upload, instance), toys.process(upload, instance, tags=ON)
    assert off.success and on.success
    before, after = output(off, "shades"), output(on, "shades")
    assert after["brightest"] == pytest.approx(before["brightest"] / 2)
    assert (before.get("flags"), after["flags"]) == (None, "dimmer")
    assert before["identity"] != after["identity"]
    assert record(toys, "shades", before["identity"])["flags"] == []
    assert record(toys, "shades", after["identity"])["flags"] == ["dimmer"]
    assert "flags" not in output(on, "mood"), "mood declares none: what it takes is another, not what it does"
    assert output(on, "mood")["identity"] != output(off, "mood")["identity"]
    assert output(on, "scan")["identity"] == output(off, "scan")["identity"]
    assert toys.store.find("shades", after["identity"]).flags == ("dimmer",)
    published = json.loads((Path(toys.places.packages) / "toy.run.json").read_text())
    assert (published["release"], published["route"]) == ("latest", {"flags": "dimmer"})


def test_with_all_flags_off_it_is_as_if_there_were_none(toys, instance):
    upload = write_toy_scan(toys.corpus / "toy")
    toys.process(upload, instance)
    artefacts = toys.artefacts()
    again = toys.process(upload, instance, tags={"geomagic/flags": ""})
    assert output(again, "shades")["reused"] is True
    assert toys.artefacts() == artefacts


def test_an_asset_reads_the_same_tag_and_shares_the_result(toys, instance):
    write_toy_scan(toys.corpus / "toy")
    assert toys.materialize("toy", instance, tags=ON).success
    made = toys.artefacts()
    op = toys.process(write_toy_scan(toys.inbox / "toy"), instance, tags=ON)
    assert output(op, "shades")["reused"] is True
    assert output(op, "shades")["flags"] == "dimmer"
    assert toys.artefacts() == made


def test_a_flag_that_no_stage_declares_is_left_out_with_one_warning(toys, instance):
    upload = write_toy_scan(toys.corpus / "toy")
    result = toys.process(upload, instance, tags={"geomagic/flags": "of_next_year, dimmer"})
    assert result.success
    assert output(result, "shades")["flags"] == "dimmer"
    logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    said = [message for message in logged if message and "of_next_year" in message]
    assert len(said) == 1
    assert "expected flags that a stage of this release declares (" in said[0]
    assert "dimmer" in said[0]
    assert "got of_next_year too. Left out: they are of a newer release, or mistyped." in said[0]
    assert any(message and "shades: with flags on: dimmer" in message for message in logged)


def test_an_artefact_that_was_made_with_a_flag_is_made_anew_with_it(toys, instance):
    """A corrupt one is made from its own record, whatever flags the run has that finds it."""
    upload = write_toy_scan(toys.corpus / "toy")
    first = toys.process(upload, instance, tags=ON)
    identity = output(first, "shades")["identity"]
    folder = Path(toys.places.store_url) / "artefacts"
    array = folder / "shades" / identity / "shades.brightness_b.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-1] + b"\0")
    mood = next(each for each in find_stages("tests.toy_stages.stages") if each.name == "mood")
    trusted(mood, "shades", identity, toys.store, logging.getLogger("test"))
    assert array.read_bytes() == whole


def test_tags_in_words():
    assert flags_in({}) == ()
    assert flags_in({"geomagic/flags": " b,a,,b "}) == ("a", "b")
    tags = {"geomagic/flight": "f-1", "geomagic/route_revision": "12", "geomagic/shadow": "", "other": "x"}
    assert route_in(tags) == {"flight": "f-1", "revision": "12"}


def test_a_package_and_its_artefacts_say_which_release_made_them(toys, instance):
    tags = {"geomagic/flight": "f-1", "geomagic/route_revision": "12"}
    result = toys.process(write_toy_scan(toys.inbox / "toy"), instance, tags=tags)
    made = record(toys, "package", output(result, "package")["identity"])
    assert made["made_by"] == {"release": "latest"}
    assert record(toys, "shades", output(result, "shades")["identity"])["libraries"].keys() == {"numpy"}
    published = json.loads((Path(toys.places.packages) / "toy.run.json").read_text())
    assert published["route"] == {"flight": "f-1", "revision": "12"}
    assert sorted(path.name for path in (Path(toys.places.packages) / "toy").iterdir()) == ["empty.bin", "letter.txt"]
