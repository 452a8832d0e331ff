"""Where a plan's counts are written: objects in a cluster or in a repository."""

from dataclasses import dataclass, field, replace

from planner.domain.fleet import ReplicaShape, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTarget:
    """A count in a cluster or in a repository, and the pool that it is the count of.

    Parameters
    ----------
    model, accelerator : str or None
        None: any.
    tp : int or None
        None: any.
    part : str
        Which of several counts in one object: a role or a component by name.
    """

    role: Role
    model: str | None = None
    accelerator: str | None = None
    tp: int | None = None
    kind: str
    api_version: str
    namespace: str | None = None
    name: str
    part: str = ""

    def is_for(self, shape: ReplicaShape) -> bool:
        """Whether it holds the count of this shape's pool."""
        return (
            self.role is shape.role
            and self.model in (None, shape.model)
            and self.accelerator in (None, shape.accelerator)
            and self.tp in (None, shape.tp)
        )

    @property
    def place(self) -> tuple[str, str | None, str, str]:
        """Where the count stands, whichever pool it is for."""
        return self.kind, self.namespace, self.name, self.part

    @property
    def label(self) -> str:
        """As people write it: `Deployment serving/decode`."""
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}" + (f" ({self.part})" if self.part else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTarget:
    """A namespace of a Kubernetes cluster that plans are applied to.

    Parameters
    ----------
    kubeconfig : str or None
        Path; None: as kubectl finds it, or the service account inside a cluster.
    context : str or None
        Of the kubeconfig; None: the current one.
    objects : tuple of CountTarget
        Which object holds the count of which pool.
    selector : str
        Labels by which those objects are found instead; empty: `objects` lists them.
    progress_deadline_s : float
        A replica that is not ready so long after it was asked for has failed, seconds.
    stock_out_cooldown_s : float
        For so long an accelerator that could not be had is not planned with, seconds.
    require_drain : bool
        Whether a scale-down is refused where pods end before their requests do.
    drain_s : float
        So long running requests have to be given to finish then, seconds.
    take_over_from : tuple of str
        Names of other Poolwise whose counts this one takes over.
    """

    namespace: str = "default"
    kubeconfig: str | None = None
    context: str | None = None
    objects: tuple[CountTarget, ...] = field(default=())
    selector: str = ""
    progress_deadline_s: float = 1800.0
    stock_out_cooldown_s: float = 1800.0
    require_drain: bool = True
    drain_s: float = 20.0
    take_over_from: tuple[str, ...] = ()

    @property
    def located(self) -> tuple[CountTarget, ...]:
        """Its objects, each with its namespace."""
        return tuple(replace(o, namespace=o.namespace or self.namespace) for o in self.objects)
