"""Serves desired replicas to KEDA by its external-push protocol.

`externalscaler_pb2.py` is generated:
`python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. actuators/keda/externalscaler.proto`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import grpc
import grpc.aio

from actuators.keda import externalscaler_pb2 as pb
from actuators.metrics import LABELS, NAME, Labels
from planner.domain.errors import NoFreePortError

Read = Callable[[], Mapping[Labels, int]]
"""Gives desired counts by labels; nothing when they are not known."""
MOST_CALLS = 4096
"""At once; more are answered RESOURCE_EXHAUSTED. Each ScaledObject holds one stream open, and a
spec names at most 1000 objects."""


class Scaler:
    """The four calls. Unknown counts are an error to KEDA, never zero, so that the HPA holds.

    Parameters
    ----------
    read : callable
    poll_s : float
        Between looks for a change to push, seconds.
    """

    def __init__(self, read: Read, *, poll_s: float = 1.0) -> None:
        self._read = read
        self._poll_s = poll_s

    async def is_active(
        self, ref: pb.ScaledObjectRef, context: grpc.aio.ServicerContext
    ) -> pb.IsActiveResponse:
        """Whether any replica is wanted."""
        return pb.IsActiveResponse(result=await self._count(ref, context) > 0)

    async def stream_is_active(
        self, ref: pb.ScaledObjectRef, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """The same, pushed at once and whenever the count changes; silent while unknown."""
        labels = await _labels(ref, context)
        told: int | None = None
        while True:  # cancelled when the client leaves or the server stops
            count = self._read().get(labels)
            if count is not None and count != told:
                told = count
                yield pb.IsActiveResponse(result=count > 0)
            await asyncio.sleep(self._poll_s)

    async def get_metric_spec(
        self, ref: pb.ScaledObjectRef, context: grpc.aio.ServicerContext
    ) -> pb.GetMetricSpecResponse:
        """One replica per unit of the metric."""
        await _labels(ref, context)
        spec = pb.MetricSpec(metricName=NAME, targetSize=1, targetSizeFloat=1.0)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def get_metrics(
        self, request: pb.GetMetricsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetMetricsResponse:
        """The desired count."""
        count = await self._count(request.scaledObjectRef, context)
        value = pb.MetricValue(metricName=NAME, metricValue=count, metricValueFloat=float(count))
        return pb.GetMetricsResponse(metricValues=[value])

    async def _count(self, ref: pb.ScaledObjectRef, context: grpc.aio.ServicerContext) -> int:
        labels = await _labels(ref, context)
        count = self._read().get(labels)
        if count is None:
            where = ", ".join(f"{k}={v}" for k, v in zip(LABELS, labels, strict=True))
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"desired replicas of {where} not known"
            )
            raise AssertionError  # abort raises
        return count


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that is taken; calls wait until `start`."""

    port: int
    _server: grpc.aio.Server
    _loop: asyncio.AbstractEventLoop

    def start(self, read: Read, *, poll_s: float = 1.0) -> None:
        """Answer with these counts from now on; `poll_s` as in `Scaler`."""
        self._server.add_generic_rpc_handlers((_handlers(Scaler(read, poll_s=poll_s)),))
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result()


@contextmanager
def listening(host: str, port: int, *, most_calls: int = MOST_CALLS) -> Iterator[Listener]:
    """Take a port (0: any free one), in a thread of its own; open calls end with the block.

    Raises
    ------
    NoFreePortError
        When it is taken, or the address is not this machine's.
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="keda", daemon=True)
    thread.start()

    try:
        server, bound = asyncio.run_coroutine_threadsafe(
            _bound(host, port, most_calls), loop
        ).result()
        try:
            yield Listener(bound, server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(grace=None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _bound(host: str, port: int, most_calls: int) -> tuple[grpc.aio.Server, int]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # With SO_REUSEPORT, which is its default, a second server would share the port unnoticed.
    options = (("grpc.so_reuseport", 0),)
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most_calls)
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise NoFreePortError(
            f"cannot listen for KEDA on {host} port {port}: choose another port, or any free one "
            "with 0"
        ) from error


def _handlers(scaler: Scaler) -> grpc.GenericRpcHandler:
    ref = pb.ScaledObjectRef.FromString
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    calls = {
        "IsActive": unary(scaler.is_active, ref, pb.IsActiveResponse.SerializeToString),
        "StreamIsActive": stream(
            scaler.stream_is_active, ref, pb.IsActiveResponse.SerializeToString
        ),
        "GetMetricSpec": unary(
            scaler.get_metric_spec, ref, pb.GetMetricSpecResponse.SerializeToString
        ),
        "GetMetrics": unary(
            scaler.get_metrics,
            pb.GetMetricsRequest.FromString,
            pb.GetMetricsResponse.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler("externalscaler.ExternalScaler", calls)


async def _labels(ref: pb.ScaledObjectRef, context: grpc.aio.ServicerContext) -> Labels:
    missing = [key for key in LABELS if key not in ref.scalerMetadata]
    if missing:
        text = f"the trigger's metadata of {ref.namespace}/{ref.name} lacks {', '.join(missing)}"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
    return tuple(ref.scalerMetadata[key] for key in LABELS)
