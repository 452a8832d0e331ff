"""The written spec's target: what plans are applied to, and which objects hold the counts."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from actuators.kinds import KINDS
from planner.domain.fleet import Role
from planner.domain.spec import Balancing, RoutesBy, Routing, TargetKind
from planner.domain.target import ClusterTarget, CountTarget
from planner.domain.topology import check_cells
from planner.service.spec.part import Name, SpecPart
from planner.service.spec.settings import CellPart

_CLUSTER = ClusterTarget()
_NAMESPACE = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class ObjectPart(SpecPart):
    """Which Kubernetes object holds the count of which pool."""

    role: Role = Field(description="role of the pool")
    model: Name | None = Field(default=None, description="model of the pool; default: any")
    accelerator: Name | None = Field(
        default=None, description="accelerator of the pool; default: any"
    )
    tp: int | None = Field(
        default=None, ge=1, le=1024, description="tensor parallel degree; default: any"
    )
    kind: str = Field(description="kind of the object, as Deployment or DynamoGraphDeployment")
    api_version: str | None = Field(
        default=None, description="of the kind; default: the one that this version knows"
    )
    namespace: str | None = Field(
        default=None, pattern=_NAMESPACE, description="default: that of the target"
    )
    name: str = Field(min_length=1, max_length=253, description="name of the object")
    part: str = Field(
        default="", description="role or component, for objects that hold several counts"
    )

    @model_validator(mode="after")
    def _is_steerable(self) -> Self:
        if self.kind not in KINDS:
            raise PydanticCustomError(
                "kind",
                "kind {kind} cannot be steered: give one of {known}{more}",
                {
                    "kind": self.kind,
                    "known": ", ".join(sorted(KINDS)),
                    "more": (
                        " (a RayService keeps its counts inside a text of its own)"
                        if self.kind == "RayService"
                        else ""
                    ),
                },
            )
        if KINDS[self.kind].has_parts != bool(self.part):
            needs = "needs `part`, its role or component" if not self.part else "has no parts"
            raise PydanticCustomError(
                "part", "kind {kind} {needs}", {"kind": self.kind, "needs": needs}
            )
        if self.kind == "LLMInferenceService" and self.part not in ("prefill", "decode"):
            raise PydanticCustomError(
                "part",
                "the part of an LLMInferenceService is prefill or decode, not {part}",
                {"part": self.part},
            )
        return self

    @property
    def target(self) -> CountTarget:
        """As a value."""
        given = self.model_dump(exclude={"api_version"})
        return CountTarget(api_version=self.api_version or KINDS[self.kind].api_version, **given)


class TargetPart(SpecPart):
    """What plans are applied to."""

    kind: TargetKind = Field(
        default=TargetKind.DRY_RUN,
        description="dry_run shows only; local starts processes; kubernetes writes counts of "
        "objects; metrics exports desired replicas",
    )
    namespace: str = Field(
        default=_CLUSTER.namespace, pattern=_NAMESPACE, description="of the objects"
    )
    kubeconfig: str | None = Field(
        default=None,
        description="kubernetes: path; default: as kubectl finds it, inside a cluster the service "
        "account",
    )
    context: str | None = Field(
        default=None, description="kubernetes: of the kubeconfig; default: its current one"
    )
    objects: list[ObjectPart] = Field(
        default_factory=list,
        max_length=1000,
        description="which Kubernetes object holds the count of which pool: kind kubernetes writes "
        "it, `poolwise diff` and `poolwise render` name it",
    )
    selector: str = Field(
        default="",
        max_length=1000,
        description="kubernetes: instead of objects, labels by which they are found in the "
        "namespace, as in app.kubernetes.io/part-of=chat; docs/kubernetes.md says which labels "
        "tell role, accelerator, tp and model",
    )
    progress_deadline_s: float = Field(
        default=_CLUSTER.progress_deadline_s,
        gt=0,
        le=86_400,
        description="kubernetes: a replica that is not ready so long after it was asked for has "
        "failed, seconds",
    )
    stock_out_cooldown_s: float = Field(
        default=_CLUSTER.stock_out_cooldown_s,
        ge=0,
        le=604_800,
        description="kubernetes: for so long plans leave out accelerators that could not be had, "
        "seconds",
    )
    require_drain: bool = Field(
        default=True,
        description="kubernetes: refuse to scale down pods that would end before their requests",
    )
    drain_s: float = Field(
        default=_CLUSTER.drain_s,
        ge=0,
        le=86_400,
        description="kubernetes: with require_drain, how long running requests have to be given to "
        "finish: as long as your longest answers take, seconds",
    )
    take_over_from: list[Annotated[str, Field(pattern=r"^poolwise-[a-z0-9]{1,40}$")]] = Field(
        default_factory=list,
        max_length=100,
        description="kubernetes: names of other Poolwise, as a refusal says them, that steer these "
        "objects no more: this one takes their counts over",
    )
    balances: Balancing = Field(
        default=Balancing.LEAST_LOADED,
        description="how its router chooses among the replicas of a pool; in turn (round_robin) it "
        "takes more of them to keep the same promise",
    )
    routes_by: list[RoutesBy] = Field(
        default_factory=list,
        description="what its router can tell requests apart by, to send them to different pools; "
        "empty: it only balances load",
    )
    uncached_input_buckets: list[int] = Field(
        default=[2048, 8192],
        description="with routes_by uncached_input_tokens: where one bucket of prompt lengths ends "
        "and the next begins, increasing, tokens to compute",
    )

    cells: list[CellPart] = Field(
        default_factory=list,
        max_length=1000,
        description="topology cells, each with a router of its own; a request is computed and "
        "answered inside one; empty: one cell that holds everything",
    )

    @field_validator("cells")
    @classmethod
    def _cells_apart(cls, parts: list[CellPart]) -> list[CellPart]:
        try:
            check_cells(part.cell for part in parts)
        except ValueError as error:
            raise PydanticCustomError("cells", "{why}", {"why": str(error)}) from None
        return parts

    @field_validator("uncached_input_buckets")
    @classmethod
    def _increasing(cls, limits: list[int]) -> list[int]:
        try:
            Routing(bucket_limits=tuple(limits))
        except ValueError:
            raise PydanticCustomError(
                "buckets", "limits must increase and be at least 1 token"
            ) from None
        return limits

    @model_validator(mode="after")
    def _buckets_where_asked_for(self) -> Self:
        if RoutesBy.UNCACHED_INPUT_TOKENS in self.routes_by and not self.uncached_input_buckets:
            raise PydanticCustomError(
                "buckets",
                "routes_by uncached_input_tokens needs uncached_input_buckets: give at least one "
                "limit, as in [2048, 8192], or take uncached_input_tokens out of routes_by",
            )
        return self

    @property
    def routing(self) -> Routing:
        """What it can do, as a value."""
        by_length = RoutesBy.UNCACHED_INPUT_TOKENS in self.routes_by
        return Routing(
            balancing=self.balances,
            by_class=RoutesBy.REQUEST_CLASS in self.routes_by,
            bucket_limits=tuple(self.uncached_input_buckets) if by_length else (),
        )

    @model_validator(mode="after")
    def _objects_where_needed(self) -> Self:
        if self.objects and self.kind is TargetKind.LOCAL:
            raise PydanticCustomError(
                "objects",
                "objects are of a cluster and do not go with kind local: take them out, or set "
                "target.kind to kubernetes, metrics or dry_run",
            )
        if self.selector and self.kind is not TargetKind.KUBERNETES:
            raise PydanticCustomError(
                "objects",
                "a selector goes with kind kubernetes, not with {kind}: set target.kind to "
                "kubernetes",
                {"kind": self.kind.value},
            )
        if self.objects and self.selector:
            raise PydanticCustomError(
                "objects",
                "give objects or selector, not both: a selector finds all objects there are",
            )
        return self

    @property
    def cluster(self) -> ClusterTarget:
        """Where in which cluster, as a value."""
        return ClusterTarget(
            namespace=self.namespace,
            kubeconfig=self.kubeconfig,
            context=self.context,
            objects=tuple(part.target for part in self.objects),
            selector=self.selector,
            progress_deadline_s=self.progress_deadline_s,
            stock_out_cooldown_s=self.stock_out_cooldown_s,
            require_drain=self.require_drain,
            drain_s=self.drain_s,
            take_over_from=tuple(self.take_over_from),
        )
