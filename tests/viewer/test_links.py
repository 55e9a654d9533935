"""What Dagster links to is there: the room of an upload and of a corpus scan, as its server answers."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dagster import DagsterInstance, MetadataValue, UrlMetadataValue

from geomagic_dagster.jobs import withdrawn
from geomagic_dagster.resources.shelf import StoreShelf
from geomagic_dagster.resources.store import ArtefactCorrupt
from geomagic_dagster.viewer.addresses import ARTEFACTS, PACKAGES
from geomagic_dagster.viewer.folders import PackageFolder
from geomagic_dagster.viewer.server import Answer, answer
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

ROOMS_URL = "https://rooms.example/of-ours"
NAME = "Küche #2"


@pytest.fixture
def toys(tmp_path) -> Toys:
    return Toys(tmp_path / "home", rooms_url=ROOMS_URL)


def asked(toys: Toys, link: MetadataValue, file: str = "") -> Answer:
    """What the server says to a link, and to a file beside it."""
    assert isinstance(link, UrlMetadataValue)
    assert link.url.startswith(f"{ROOMS_URL}/")
    shelves = {PACKAGES: PackageFolder(Path(toys.places.packages)), ARTEFACTS: StoreShelf(toys.store)}
    return answer(shelves, urlsplit(link.url).path.removeprefix(urlsplit(ROOMS_URL).path) + file)


def test_links_of_an_upload_and_of_a_corpus_scan_lead_to_the_room(toys):
    with DagsterInstance.ephemeral() as instance:
        upload = toys.process(write_toy_scan(toys.inbox / NAME), instance)
        write_toy_scan(toys.corpus / NAME)
        corpus = toys.materialize(NAME, instance)
    assert upload.success and corpus.success
    links = [
        *(event.event_specific_data.metadata for event in upload.all_events if event.is_successful_output),
        *(event.event_specific_data.materialization.metadata for event in corpus.get_asset_materialization_events()),
    ]
    rooms = [metadata["room"] for metadata in links if "room" in metadata]
    assert len(rooms) == 3, "the step `package`, the step `publish`, the asset `package`"
    for link in rooms:
        assert asked(toys, link).status == 200
        assert asked(toys, link, "letter.txt").content.startswith(f"{NAME}: ".encode())


def test_the_store_is_asked_for_identities_only(toys):
    shelf = StoreShelf(toys.store)
    assert shelf.names() == []
    for name in ("", "..", "0" * 32, "0" * 31, "../" + "0" * 29, "0" * 31 + "\n", "0" * 32 + "\n"):
        assert shelf.files(name) is None


def test_a_package_that_was_withdrawn_is_not_shown_nor_a_corrupt_one(toys):
    packages, quarantine = Path(toys.places.packages), Path(toys.places.quarantine)
    with DagsterInstance.ephemeral() as instance:
        assert toys.process(write_toy_scan(toys.inbox / NAME), instance).success
    [folder] = (Path(toys.places.store_url) / "artefacts" / "package").iterdir()
    shelf = StoreShelf(toys.store, lambda: withdrawn.uploads(quarantine))
    assert list(shelf.files(folder.name) or ()) == ["empty.bin", "letter.txt"]
    withdrawn.withdraw(packages, quarantine, NAME)
    assert PackageFolder(packages).names() == [] and shelf.files(folder.name) is None
    withdrawn.forget(quarantine, NAME)
    assert list(shelf.files(folder.name) or ()) == ["empty.bin", "letter.txt"]
    (folder / "letter.txt").write_text("another")
    with pytest.raises(ArtefactCorrupt, match="Run the step package again"):
        StoreShelf(toys.store).files(folder.name)
