from __future__ import annotations

from dataclasses import replace

import pytest
from dagster import DagsterInstance, build_sensor_context

from geomagic_dagster.corpus.scans import add, add_made_up, names
from geomagic_dagster.cv.stage import ScanRejected
from geomagic_dagster.jobs.corpus_sensor import corpus_sensor
from geomagic_dagster.resources.places import Places
from geomagic_dagster.scans.formats import canonical
from geomagic_dagster.scans.made_up import CLEAN
from geomagic_dagster.scans.reader import read_scan
from tests.toy_stages.scans import toy_scan, write_toy_scan


def test_a_scan_is_copied_into_the_corpus_in_our_own_layout(tmp_path):
    upload = write_toy_scan(tmp_path / "Küche")
    place = add(upload, tmp_path / "corpus", name="kitchen")
    assert place == tmp_path / "corpus" / "kitchen"
    assert names(tmp_path / "corpus") == ("kitchen",)
    assert read_scan(place).name == "kitchen"
    assert upload.exists()
    with pytest.raises(ScanRejected, match="expected a name that is free in the corpus; got one that is taken"):
        add(upload, tmp_path / "corpus", name="kitchen")


def test_without_consent_to_research_nothing_comes_in(tmp_path):
    canonical.write(replace(toy_scan("room"), consent="process"), tmp_path / "room")
    with pytest.raises(ScanRejected, match='expected the consent of the person who scanned to research; got "process"'):
        add(tmp_path / "room", tmp_path / "corpus")
    assert names(tmp_path / "corpus") == ()
    place = add(tmp_path / "room", tmp_path / "corpus", consent="research")
    assert read_scan(place).consent == "research"


@pytest.mark.parametrize("name", ["../out", ".hidden", "a/b", "a...b", "", "x" * 200])
def test_names_that_are_no_plain_folder_are_refused(tmp_path, name):
    upload = write_toy_scan(tmp_path / "room")
    with pytest.raises(ScanRejected, match="Give it another name"):
        add(upload, tmp_path / "corpus", name=name)
    assert names(tmp_path / "corpus") == ()


def test_a_made_up_room_joins_the_corpus(tmp_path):
    place = add_made_up(3, tmp_path, CLEAN.but(frames=3, size_wh=(64, 48)))
    assert names(tmp_path) == ("made_up_3",)
    assert read_scan(place).consent == "research"


def tick(places: Places, instance: DagsterInstance):
    with build_sensor_context(instance=instance, resources={"places": places}) as context:
        result = corpus_sensor()(context)
    for request in result.dynamic_partitions_requests or ():
        if "Add" in type(request).__name__:
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        else:
            for key in request.partition_keys:
                instance.delete_dynamic_partition(request.partitions_def_name, key)
    return result


def test_the_partitions_follow_the_corpus_folder(tmp_path):
    places = Places.in_home(tmp_path)
    with DagsterInstance.ephemeral() as instance:
        assert "no corpus folder" in tick(places, instance).skip_reason.skip_message
        for name in ("b", "a", ".half", "Küche 2"):
            (tmp_path / "corpus" / name).mkdir(parents=True)
        tick(places, instance)
        assert sorted(instance.get_dynamic_partitions("corpus")) == ["Küche 2", "a", "b"]
        (tmp_path / "corpus" / "a").rmdir()
        tick(places, instance)
        assert sorted(instance.get_dynamic_partitions("corpus")) == ["Küche 2", "b"]
        assert tick(places, instance).skip_reason.skip_message == "2 corpus scans, nothing new"


def test_a_corpus_that_is_not_mounted_loses_no_partition(tmp_path):
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("corpus", ["a"])
        tick(Places.in_home(tmp_path), instance)
        assert list(instance.get_dynamic_partitions("corpus")) == ["a"]
