"""Serves desired replicas to KEDA by its external-push protocol.

`externalscaler_pb2.py` is generated:
`python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. actuators/keda/externalscaler.proto`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc

from actuators.keda import externalscaler_pb2 as pb
from actuators.metrics import LABELS, NAME, Labels
from planner.domain.errors import NoFreePortError

Read = Callable[[], Mapping[Labels, int]]
"""Gives desired counts by labels; nothing when they are not known."""
MOST_STREAMS = 64
"""Each ScaledObject holds one stream open."""


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

    def is_active(
        self, ref: pb.ScaledObjectRef, context: grpc.ServicerContext
    ) -> pb.IsActiveResponse:
        """Whether any replica is wanted."""
        return pb.IsActiveResponse(result=self._count(ref, context) > 0)

    def stream_is_active(
        self, ref: pb.ScaledObjectRef, context: grpc.ServicerContext
    ) -> Iterator[pb.IsActiveResponse]:
        """The same, pushed at once and whenever the count changes; silent while unknown."""
        told: int | None = None
        while context.is_active():
            count = self._read().get(_labels(ref, context))
            if count is not None and count != told:
                told = count
                yield pb.IsActiveResponse(result=count > 0)
            time.sleep(self._poll_s)

    def get_metric_spec(
        self, ref: pb.ScaledObjectRef, context: grpc.ServicerContext
    ) -> pb.GetMetricSpecResponse:
        """One replica per unit of the metric."""
        _labels(ref, context)
        spec = pb.MetricSpec(metricName=NAME, targetSize=1, targetSizeFloat=1.0)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    def get_metrics(
        self, request: pb.GetMetricsRequest, context: grpc.ServicerContext
    ) -> pb.GetMetricsResponse:
        """The desired count."""
        count = self._count(request.scaledObjectRef, context)
        value = pb.MetricValue(metricName=NAME, metricValue=count, metricValueFloat=float(count))
        return pb.GetMetricsResponse(metricValues=[value])

    def _count(self, ref: pb.ScaledObjectRef, context: grpc.ServicerContext) -> int:
        labels = _labels(ref, context)
        count = self._read().get(labels)
        if count is None:
            where = ", ".join(f"{k}={v}" for k, v in zip(LABELS, labels, strict=True))
            context.abort(grpc.StatusCode.UNAVAILABLE, f"desired replicas of {where} not known")
            raise AssertionError  # abort raises
        return count


def serve(scaler: Scaler, address: str) -> tuple[grpc.Server, int]:
    """Start serving; the server, and the port that it listens on.

    Raises
    ------
    NoFreePortError
        When the address is taken.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=MOST_STREAMS + 8))
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
    handler = grpc.method_handlers_generic_handler("externalscaler.ExternalScaler", calls)
    server.add_generic_rpc_handlers((handler,))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise NoFreePortError(f"cannot listen on {address}: choose another address") from error
    server.start()
    return server, port


def _labels(ref: pb.ScaledObjectRef, context: grpc.ServicerContext) -> Labels:
    missing = [key for key in LABELS if key not in ref.scalerMetadata]
    if missing:
        text = f"the trigger's metadata of {ref.namespace}/{ref.name} lacks {', '.join(missing)}"
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
    return tuple(ref.scalerMetadata[key] for key in LABELS)
