"""Reading the spec: one YAML file (or JSON object) becomes a checked `Spec`.

Everything that is wrong is reported together, each with file and line, what is wrong and what to
do. A missing profile has two ways out: measure, or `allow_estimates`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import JsonValue, ValidationError

from planner.domain.errors import InputError, ProfileError, SpecError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.guards import ApprovalPolicy
from planner.domain.hardware import Accelerator, Catalogue, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.profile import Profile, ProfileKind
from planner.domain.slo import DEFAULT_CLASS, Slo
from planner.domain.spec import (
    Budget,
    PoolBounds,
    Spec,
)
from planner.service.spec.bounds import contradictions
from planner.service.spec.catalogue import read_catalogue
from planner.service.spec.document import (
    AcceleratorPart,
    ModelPart,
    PoolPart,
    PricePart,
    SloPart,
    SpecDocument,
)
from planner.service.spec.model_config import Overrides, model_of, read_model_config
from planner.service.spec.offered_shapes import estimated, search_of, searched, why_none
from planner.service.spec.problems import did_you_mean, dotted, form_problems
from planner.service.spec.yaml_source import Location, YamlSource, read_yaml
from profiler.files import profile_of, read_profile

Part = TypeVar("Part")
Made = TypeVar("Made")

HINT = "see `poolwise validate --schema` for what a spec holds"


def read_spec(
    path: Path,
    *,
    allow_estimates: bool = False,
    complete: bool = True,
    catalogue: Catalogue | None = None,
) -> Spec:
    """The spec in a YAML file, with its models' configs and its profiles.

    Parameters
    ----------
    path : Path
        Paths inside the file count from its folder.
    allow_estimates : bool
        Fill missing profiles with roofline estimates, labelled so.
    complete : bool
        False: what cannot be planned for want of memory or a profile is left out, not refused,
        for those who want to see why.
    catalogue : Catalogue or None
        What is known of accelerators; None: what is shipped.

    Raises
    ------
    SpecError
        With every problem on a line of its own: file, line, what is wrong, what to do.
    """
    source = read_yaml(path, what="a spec", hint=HINT)
    return _Reader(source, path.parent, allow_estimates, catalogue, complete=complete).spec()


def spec_from(source: YamlSource, *, folder: Path, allow_estimates: bool = False) -> Spec:
    """The spec in what was read; paths in it count from the folder. Raises as `read_spec`."""
    return _Reader(source, folder, allow_estimates).spec()


def files_named_in(path: Path) -> tuple[Path, ...]:
    """Profiles and model configs that a spec names, whether they are there or not.

    Raises
    ------
    SpecError
        When the file is no YAML.
    """
    data = read_yaml(path, what="a spec", hint=HINT).data
    listed = data.get("profiles"), data.get("models")
    profiles, models = (part if isinstance(part, list) else [] for part in listed)
    configs = [part.get("config") for part in models if isinstance(part, Mapping)]
    return tuple(path.parent / name for name in (*profiles, *configs) if isinstance(name, str))


def spec_of(
    data: Mapping[str, object],
    *,
    where: str,
    allow_estimates: bool = False,
    catalogue: Catalogue | None = None,
) -> Spec:
    """The spec in a parsed JSON object that came from outside; it may not name files."""
    source = YamlSource(where=where, data=data, lines=MappingProxyType({}))
    return _Reader(source, None, allow_estimates, catalogue).spec()


def has_estimates(spec: Spec) -> bool:
    """Whether any profile of the spec is an estimate and not a measurement."""
    return any(p.provenance.kind is ProfileKind.ESTIMATED for p in spec.profiles)


class _Reader:
    """Collects problems while the parts of one spec are converted."""

    def __init__(
        self,
        source: YamlSource,
        folder: Path | None,
        allow_estimates: bool,
        catalogue: Catalogue | None = None,
        *,
        complete: bool = True,
    ) -> None:
        self.source = source
        self.folder = folder
        self.allow_estimates = allow_estimates
        self.catalogue = catalogue or read_catalogue()
        self.complete = complete
        self.problems: list[tuple[int, str]] = []

    def spec(self) -> Spec:
        """Form, then parts, then what they mean together; raises with all that was found."""
        document = self._form()
        models = self._each("models", document.models, self._model)
        slos = self._each("slos", document.slos, _slo)
        accelerators = self._each("accelerators", document.accelerators, self._accelerator)
        profiles = self._each("profiles", document.profiles, self._profile)
        pools = self._each("pools", document.pools, _pool)
        self._check_names(document)
        self._check_promises(document)
        self._check_ratios(document)
        self._check_events(document)
        self._raise()
        spec = Spec(
            spec_id="",
            name=document.name,
            models=models,
            slos=slos,
            accelerators=accelerators,
            profiles=profiles,
            pools=pools,
            target=document.target.kind,
            cluster=document.target.cluster,
            routing=document.target.routing,
            cells=tuple(part.cell for part in document.target.cells),
            budget=Budget(**document.budget.model_dump()),
            planning=document.planning.settings,
            calibration=document.calibration.settings,
            forecast=document.forecast.settings,
            loop=document.loop.settings,
            guards=document.guards.settings,
            approval=ApprovalPolicy(**document.approval.model_dump()),
        )
        spec = _normalized(spec)
        searches = self._each(
            "shapes", document.shapes, lambda part: search_of(part, models, accelerators)
        )
        self._raise()
        spec = self._with_found(replace(spec, shapes=searches))
        self._check_roles(spec)
        self._check_pins(document, spec)
        self._check_bounds(document, spec)
        self._raise()
        spec = replace(spec, profiles=self._complete(spec, listed=len(document.pools)))
        self._raise()
        return replace(spec, spec_id=_spec_id(document, spec))

    def _form(self) -> SpecDocument:
        try:
            return SpecDocument.model_validate(self.source.data)
        except ValidationError as error:
            raise SpecError("\n".join(form_problems(error, self.source, SpecDocument))) from error

    def _problem(self, location: Location, text: str) -> None:
        place = self.source.place(location)
        line = place.rpartition(":")[2]
        self.problems.append((int(line) if line.isdigit() else 0, f"{place}: {text}"))

    def _raise(self) -> None:
        if self.problems:
            lines = [text for _, text in sorted(self.problems, key=lambda problem: problem[0])]
            raise SpecError("\n".join(dict.fromkeys(lines)))

    def _each(
        self, section: str, parts: Iterable[Part], convert: Callable[[Part], Made]
    ) -> tuple[Made, ...]:
        """Convert every part of a section; a refused one becomes a problem at its line."""
        made = []
        for index, part in enumerate(parts):
            location: Location = (section, index)
            try:
                made.append(convert(part))
            except ValueError as error:
                # Domain values name the field first, which finds the exact line.
                field = str(error).split(" ", 1)[0]
                self._problem((*location, field), f"{dotted(location)}: {error}")
            except InputError as error:
                self._problem(location, f"{dotted(location)}: {error}")
        return tuple(made)

    def _model(self, part: ModelPart) -> Model:
        config: Mapping[str, object]
        if isinstance(part.config, str):
            config = read_model_config(self._file(part.config))
        else:
            config = part.config
        overrides = Overrides(
            parameters=part.parameters,
            active_parameters=part.active_parameters,
            weight_dtype=part.weight_dtype,
            kv_dtype=part.kv_dtype,
            max_context_tokens=part.max_context_tokens,
        )
        return model_of(config, name=part.name, priority=part.priority, overrides=overrides)

    def _accelerator(self, part: AcceleratorPart) -> Accelerator:
        facts = self.catalogue.find(part.name)
        vendors = None if facts is None else facts.memory_bytes
        return Accelerator(
            name=part.name,
            per_node=part.per_node,
            inventory=part.inventory,
            offers=_offers(part.usd_per_gpu_hour),
            memory_bytes=vendors if part.memory_bytes is None else part.memory_bytes,
            power_w=part.power_w,
            facts=facts,
        )

    def _profile(self, entry: str | dict[str, JsonValue]) -> Profile:
        if isinstance(entry, str):
            return read_profile(self._file(entry))
        return profile_of(entry, where="this profile")

    def _file(self, name: str) -> Path:
        """A path counted from the spec's folder; a spec that came by network names none."""
        if self.folder is None:
            raise SpecError(
                f"names the file `{name}`, which a spec in a request may not: put its content "
                "there instead"
            )
        return self.folder / Path(name).expanduser()

    def _check_names(self, document: SpecDocument) -> None:
        """References between sections resolve, and nothing is listed twice."""
        models = [m.name for m in document.models]
        accelerators = {a.name: a for a in document.accelerators}
        self._once("models", models)
        self._once("accelerators", [a.name for a in document.accelerators])
        self._once("slos", [f"{s.model}, class {s.request_class}" for s in document.slos])
        self._once("pools", [_pool_name(p) for p in document.pools])
        for index, slo in enumerate(document.slos):
            self._known(("slos", index, "model"), slo.model, models)
        for index, pool in enumerate(document.pools):
            self._known(("pools", index, "model"), pool.model, models)
            self._known(("pools", index, "accelerator"), pool.accelerator, list(accelerators))
            accelerator = accelerators.get(pool.accelerator)
            if accelerator and pool.tp > accelerator.per_node:
                self._problem(
                    ("pools", index, "tp"),
                    f"pools[{index}].tp is {pool.tp}, but a node has {accelerator.per_node} x "
                    f"{accelerator.name}: a tensor-parallel group does not span nodes",
                )
        for index, part in enumerate(document.shapes):
            self._known(("shapes", index, "model"), part.model, models)
            for place, name in enumerate(part.accelerators or ()):
                self._known(("shapes", index, "accelerators", place), name, list(accelerators))

        for index, link in enumerate(document.planning.transfer_links):
            for end, at in (("prefill", link.prefill), ("decode", link.decode)):
                if at is not None:
                    where: Location = ("planning", "transfer_links", index, end)
                    self._known(where, at, list(accelerators))

    def _once(self, section: str, names: list[str]) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                self._problem((section, index), f"{section} lists {name} twice: keep one")

    def _known(self, location: Location, name: str, known: list[str]) -> None:
        if name not in known:
            self._problem(
                location, f"{dotted(location)} is `{name}`, unknown here{did_you_mean(name, known)}"
            )

    def _check_promises(self, document: SpecDocument) -> None:
        for index, model in enumerate(document.models):
            if model.name not in {s.model for s in document.slos}:
                self._problem(("models", index), f"model {model.name} has no entry in slos")

    def _with_found(self, spec: Spec) -> Spec:
        """The spec with the pools that its searches come to, behind those that it lists."""
        pools = {bounds.shape: bounds for bounds in spec.pools}
        for index, search in enumerate(spec.shapes):
            found = searched(spec, search, allow_estimates=self.allow_estimates)
            offered = [one.shape for one in found if one.is_kept]
            if not offered and self.complete:
                location: Location = ("shapes", index)
                self._problem(location, f"{dotted(location)}: {why_none(spec, search, found)}")
            for shape in offered:
                pools.setdefault(shape, PoolBounds(shape=shape))
        return replace(spec, pools=tuple(pools.values()))

    def _check_roles(self, spec: Spec) -> None:
        """Every model has pools that can answer a request from end to end."""
        for model in spec.models if self.complete and not self.problems else ():
            roles = {b.shape.role for b in spec.pools if b.shape.model == model.name}
            if Role.AGGREGATED in roles or roles >= {Role.PREFILL, Role.DECODE}:
                continue
            missing = Role.DECODE if Role.PREFILL in roles else Role.PREFILL
            self._problem(
                ("pools",),
                f"model {model.name} cannot be served: pools has no {missing} pool for it (give "
                "prefill and decode, or aggregated, or let `shapes` find some)",
            )

    def _check_pins(self, document: SpecDocument, spec: Spec) -> None:
        """Guards name pools that may be planned."""
        labels = sorted({bounds.shape.label for bounds in spec.pools})
        for field in ("pins", "fallback_pools") if self.complete else ():
            for index, pin in enumerate(getattr(document.guards, field)):
                self._known(("guards", field, index, "pool"), pin.pool, labels)

    def _check_bounds(self, document: SpecDocument, spec: Spec) -> None:
        for one in contradictions(document, spec):
            line = self.source.lines.get(one.other)
            place = f"{dotted(one.other)}{f' (line {line})' if line else ''}"
            self._problem(
                one.at, f"{dotted(one.at)} {one.says}, but {place} {one.but}: change one of them"
            )

    def _check_ratios(self, document: SpecDocument) -> None:
        low = document.planning.min_prefill_per_decode
        high = document.planning.max_prefill_per_decode
        if low is not None and high is not None and low > high:
            self._problem(
                ("planning", "min_prefill_per_decode"),
                f"planning.min_prefill_per_decode ({low:g}) is above max_prefill_per_decode "
                f"({high:g}): no fleet has such a ratio",
            )

    def _check_events(self, document: SpecDocument) -> None:
        """An event names a class that is promised something, or that `default` stands for."""
        classes = sorted({slo.request_class for slo in document.slos})
        for index, event in enumerate(document.forecast.events):
            if event.request_class is not None and DEFAULT_CLASS not in classes:
                location = ("forecast", "events", index, "request_class")
                self._known(location, event.request_class, classes)

    def _complete(self, spec: Spec, *, listed: int) -> tuple[Profile, ...]:
        """The profiles, with estimates for shapes without one where that is allowed.

        Parameters
        ----------
        listed : int
            Pools that the spec lists itself, which come first.
        """
        profiles = list(spec.profiles)
        # Shapes that leave limits open come first: an estimate with a limit describes them, too.
        order = sorted(enumerate(spec.pools), key=lambda pool: _states_limits(pool[1].shape))
        for index, pool in order:
            if spec.profile_of(pool.shape) is not None:
                continue
            location: Location = ("pools", index)
            if not self.allow_estimates:
                if self.complete:
                    self._problem(location, _no_profile(index, pool.shape, spec))
                continue
            try:
                profiles.append(estimated(spec, pool.shape))
            except ProfileError as error:
                if index < listed and self.complete:
                    self._problem(location, f"{dotted(location)}: {error}")
        return tuple(profiles)


def _states_limits(shape: ReplicaShape) -> bool:
    return shape.max_num_batched_tokens is not None or shape.max_num_seqs is not None


def _normalized(spec: Spec) -> Spec:
    """The spec with formats that are the model's own left open in pools and profiles."""
    own = {m.name: m for m in spec.models}
    return replace(
        spec,
        pools=tuple(replace(b, shape=spec.normalized(b.shape)) for b in spec.pools),
        profiles=tuple(_plainly(p, own[p.model]) if p.model in own else p for p in spec.profiles),
    )


def _plainly(profile: Profile, model: Model) -> Profile:
    weights, kv = model.left_open(profile.weight_dtype, profile.kv_dtype)
    return replace(profile, weight_dtype=weights, kv_dtype=kv)


def _no_profile(index: int, shape: ReplicaShape, spec: Spec) -> str:
    """What is missing and the two ways out; says when a profile is close."""
    near = [
        f"{p.profile_id} ({p.model} on {p.accelerator}, {_variant(p)}, "
        f"{'/'.join(r.value for r in p.roles)})"
        for p in spec.profiles
    ]
    given = f"; given: {', '.join(near)}" if near else ""
    return (
        f"pools[{index}] has no profile for {shape.model} on {shape.accelerator}, "
        f"{_variant(shape)}, {shape.role}{given}. Two ways out: measure it with `poolwise profile "
        "run` and list the file under profiles, or plan with a rough estimate by --allow-estimates"
    )


def _variant(of: ReplicaShape | Profile) -> str:
    """Degrees, and formats that are not the model's own, as in `tp 2, pp 2, fp8 weights`."""
    parts = [f"tp {of.tp}"]
    parts += [f"{name} {n}" for name, n in (("pp", of.pp), ("dp", of.dp)) if n > 1]
    parts += [f"{of.weight_dtype} weights"] if of.weight_dtype else []
    parts += [f"{of.kv_dtype} KV cache"] if of.kv_dtype else []
    if isinstance(of, ReplicaShape):
        chunk, seqs = of.max_num_batched_tokens, of.max_num_seqs
        parts += [f"max_num_batched_tokens {chunk}"] if chunk else []
        parts += [f"max_num_seqs {seqs}"] if seqs else []
    return ", ".join(parts)


def _slo(part: SloPart) -> Slo:
    return Slo(**part.model_dump())


def _shape(part: PoolPart) -> ReplicaShape:
    return ReplicaShape(
        role=part.role,
        model=part.model,
        accelerator=part.accelerator,
        tp=part.tp,
        pp=part.pp,
        dp=part.dp,
        weight_dtype=part.weight_dtype,
        kv_dtype=part.kv_dtype,
        max_num_batched_tokens=part.max_num_batched_tokens,
        max_num_seqs=part.max_num_seqs,
    )


def _pool(part: PoolPart) -> PoolBounds:
    return PoolBounds(
        shape=_shape(part),
        min_replicas=part.min_replicas,
        max_replicas=part.max_replicas,
        min_up_s=part.min_up_s,
        max_starts=part.max_starts,
        max_stops=part.max_stops,
    )


def _pool_name(part: PoolPart) -> str:
    return f"{part.role} of {part.model} on {part.accelerator}, {_variant(_shape(part))}"


def _offers(price: PricePart) -> tuple[Offer, ...]:
    given = (
        (PurchaseOption.RESERVED, price.reserved, 0.0),
        (PurchaseOption.ON_DEMAND, price.on_demand, 0.0),
        (PurchaseOption.SPOT, price.spot, price.spot_interruptions_per_hour),
    )
    return tuple(
        Offer(
            purchase_option=option,
            usd_per_gpu_hour=usd,
            interruptions_per_hour=interruptions,
            billing_increment_s=price.billing_increment_s,
            reserved_count=price.reserved_count if option is PurchaseOption.RESERVED else None,
        )
        for option, usd, interruptions in given
        if usd is not None
    )


def _spec_id(document: SpecDocument, spec: Spec) -> str:
    """Equal content and equal profiles give an equal id, wherever the files lie."""
    content = document.model_dump(mode="json", by_alias=True, exclude={"profiles"})
    content["models"] = [repr(model) for model in spec.models]
    content["profiles"] = sorted(p.profile_id for p in spec.profiles)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "spec-" + hashlib.sha256(text.encode()).hexdigest()[:12]
