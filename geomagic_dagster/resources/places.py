"""Where everything lies: the store, the inbox, the corpus, what was published, done, rejected.

Belongs here: the resource that hands these places to steps, sensors and the IO manager. Does not belong
here: where they come from (definitions.py reads the environment, nobody else), what happens in them.
"""

from pathlib import Path
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

from geomagic_dagster.releases.routing import RoutingStore
from geomagic_dagster.resources.store import ArtefactStore
from geomagic_dagster.resources.weights import WeightStore


class Places(ConfigurableResource):
    """All places of one installation; absolute, since steps run in other processes."""

    store_url: str = Field(description="Artefacts: a local folder or any fsspec URL (s3://bucket/prefix).")
    cache: str = Field(description="Local folder for artefacts of a store elsewhere, so that they can be mapped.")
    inbox: str = Field(description="Uploads arrive here.")
    done: str = Field(description="Uploads that were processed.")
    quarantine: str = Field(description="Uploads that can never be processed, each with the reason in words.")
    failed: str = Field(description="Uploads that the platform failed on, for a person to look at.")
    packages: str = Field(description="What people receive.")
    corpus: str = Field(description="Room scans that researchers measure their steps on.")
    routing_url: str = Field("", description="The routing table's revisions; beside the artefacts where not said.")
    weights_url: str = Field("", description="Files of trained weights; beside the artefacts where not said.")
    rooms_url: str = Field("http://127.0.0.1:3001", description="Where `geomagic room serve` answers browsers.")
    device: str | None = Field(
        None, description='Where tensors live: "cpu", "cuda:0"; CUDA where there is one if unset.'
    )
    code_from: list[str] = Field(
        ["geomagic_dagster.cv"], description="Packages of the stages: only their nouns are loaded from the store."
    )

    @classmethod
    def in_home(cls, home: Path, **elsewhere: Any) -> "Places":
        """Everything below one folder, but for what is said to be elsewhere."""
        names = ("cache", "inbox", "done", "quarantine", "failed", "packages", "corpus")
        below = {name: str(home / name) for name in names}
        return cls(**{"store_url": str(home / "store"), **below, **elsewhere})

    def store(self) -> ArtefactStore:
        """The artefact store; cheap to make."""
        return ArtefactStore(self.store_url, Path(self.cache), tuple(self.code_from))

    def routing(self) -> RoutingStore:
        """The routing table; cheap to make."""
        url = self.routing_url or f"{self.store_url.rstrip('/')}/routing"
        return RoutingStore(url, Path(self.cache) / "routing" / "last_good.json")

    def weights(self) -> WeightStore:
        """The files of trained weights; cheap to make."""
        url = self.weights_url or f"{self.store_url.rstrip('/')}/weights"
        return WeightStore(url, Path(self.cache) / "weights")
