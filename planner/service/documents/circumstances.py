"""Under which circumstances requests are replayed: router, links and places, events, limits."""

from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from planner.domain.errors import InputError
from planner.domain.topology import MOST_PLACES, Distance
from planner.service.documents.document import Document
from planner.service.spec.problems import form_problems
from planner.service.spec.yaml_source import YamlSource, read_yaml
from planner.simulate import Incident, LinkClass, RouterPolicy

MOST_EVENTS = 10_000

PoolName = Annotated[
    int | str,
    Field(
        description="a pool by its number in the answer (from 0) or its name, as in "
        "`prefill:h100:tp2`"
    ),
]
Seconds = Annotated[float, Field(ge=0, le=1e9, description="seconds")]


Read = TypeVar("Read", bound=Document)


class LinkDocument(Document):
    """What one transfer of a KV cache, and all together, get over one distance."""

    base_s: Seconds = Field(description="fixed part of a transfer, seconds")
    flow_bytes_per_s: float = Field(gt=0, description="the most that one transfer gets")
    link_bytes_per_s: float = Field(
        gt=0, description="what all transfers of one node (rack) get together, each way"
    )
    source: str = Field(
        min_length=1,
        max_length=500,
        description="who measured it on what, or whose data sheet it is from",
    )

    def link(self) -> LinkClass:
        """The link class."""
        return LinkClass(
            base_s=self.base_s,
            flow_bytes_per_s=self.flow_bytes_per_s,
            link_bytes_per_s=self.link_bytes_per_s,
            source=self.source,
        )


class LinksDocument(Document):
    """One class of links per distance."""

    same_node: LinkDocument
    same_rack: LinkDocument
    cross_rack: LinkDocument

    def by_distance(self) -> dict[Distance, LinkClass]:
        """The link classes."""
        return {
            Distance.SAME_NODE: self.same_node.link(),
            Distance.SAME_RACK: self.same_rack.link(),
            Distance.CROSS_RACK: self.cross_rack.link(),
        }


class PlaceDocument(Document):
    """Where replicas stand."""

    rack: int = Field(default=0, ge=0, lt=MOST_PLACES)
    node: int = Field(ge=0, lt=MOST_PLACES, description="its number in the whole fleet")
    replicas: int = Field(default=1, ge=1, le=MOST_PLACES, description="how many stand there")


class PoolPlacesDocument(Document):
    """Where the replicas of one pool stand, in order of their numbers."""

    pool: PoolName
    places: list[PlaceDocument] = Field(min_length=1, max_length=MOST_PLACES)


class TopologyDocument(Document):
    """Links by distance, and where replicas stand; pools left out stand on node 0 of rack 0."""

    links: LinksDocument
    pools: list[PoolPlacesDocument] = Field(default_factory=list, max_length=1_000)


class EventDocument(Document):
    """Something that happens to one replica."""

    at_s: Seconds = Field(description="seconds from the start")
    incident: Incident
    pool: PoolName
    replica: int = Field(ge=0, description="its number within the pool, from 0")
    notice_s: Seconds | None = Field(
        default=None, description="reclaim: it drains for so long first; left out: 120 s"
    )
    restarts: bool | None = Field(
        default=None, description="fail: whether it is started again at once; left out: yes"
    )
    to_pool: PoolName | None = Field(default=None, description="flip: the pool it joins")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        own = {"notice_s": Incident.RECLAIM, "restarts": Incident.FAIL, "to_pool": Incident.FLIP}
        for field, incident in own.items():
            if getattr(self, field) is not None and self.incident is not incident:
                raise ValueError(f"{field} is for incident {incident}, not {self.incident}")
        if self.incident is Incident.FLIP and self.to_pool is None:
            raise ValueError("a flip needs to_pool, the pool that the replica joins")
        return self


class EventsDocument(Document):
    """A list of events."""

    events: list[EventDocument] = Field(max_length=MOST_EVENTS)


class LongestPromptDocument(Document):
    """For router `by_length`: the longest prompt that is sent to a pool."""

    pool: PoolName
    tokens: int = Field(ge=1, le=10**9, description="tokens to compute")


class CircumstancesDocument(Document):
    """How requests are routed, what is in their way, and what happens meanwhile."""

    router: RouterPolicy = RouterPolicy.LEAST_LOADED
    longest_prompts: list[LongestPromptDocument] = Field(
        default_factory=list, max_length=1_000, description="for router by_length"
    )
    topology: TopologyDocument | None = Field(
        default=None, description="left out: every transfer has a path of its own"
    )
    events: list[EventDocument] = Field(default_factory=list, max_length=MOST_EVENTS)
    prefix_cache: bool = Field(
        default=True,
        description="replicas keep prefix blocks, where the requests name them; false: "
        "cached_tokens are taken as cached",
    )
    local_prefill_tokens: int = Field(
        default=0,
        ge=0,
        le=10**9,
        description="prompts with fewer tokens to compute stay on the decode replica; 0 never",
    )
    early_rejection_s: float | None = Field(
        default=None, gt=0, le=1e9, description="reject when the expected TTFT is beyond, seconds"
    )
    patience_s: float | None = Field(
        default=None, gt=0, le=1e9, description="clients leave after so long, seconds"
    )
    unstable_wait_s: float = Field(
        default=3600.0,
        gt=0,
        le=1e9,
        description="stop when the first in a line has waited so long, seconds",
    )


def read_topology(path: Path) -> TopologyDocument:
    """The topology in a YAML file.

    Raises
    ------
    InputError
        When the file is missing or no topology; with the line.
    """
    source = read_yaml(path, what="a topology", hint="give links by distance, see docs/simulate.md")
    return _parsed(TopologyDocument, source)


def read_events(path: Path) -> list[EventDocument]:
    """The events in a YAML file.

    Raises
    ------
    InputError
        When the file is missing or holds no events; with the line.
    """
    source = read_yaml(path, what="events", hint="give a list `events:`, see docs/simulate.md")
    return _parsed(EventsDocument, source).events


def _parsed(kind: type[Read], source: YamlSource) -> Read:
    try:
        return kind.model_validate(source.data)
    except ValidationError as error:
        raise InputError("\n".join(form_problems(error, source, kind))) from error
