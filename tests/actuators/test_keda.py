"""The external scaler, asked by a real gRPC client on loopback."""

from collections.abc import Iterator

import pytest

grpc = pytest.importorskip("grpc", reason="needs the extra keda (grpcio, protobuf)")

from actuators.keda import externalscaler_pb2 as pb  # noqa: E402
from actuators.keda.scaler import Scaler, serve  # noqa: E402

KEY = ("chat", "m", "decode", "h100", "2")
METADATA = dict(zip(("deployment", "model", "role", "accelerator", "tp"), KEY, strict=True))
REF = pb.ScaledObjectRef(name="decode", namespace="serving", scalerMetadata=METADATA)
WAIT_S = 20


class _Client:
    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], int] = {KEY: 11}
        self.server, port = serve(Scaler(lambda: self.counts, poll_s=0.01), "127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def ask(self, name, request, answer):
        call = self.channel.unary_unary(
            f"/externalscaler.ExternalScaler/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=WAIT_S)

    def stream(self):
        call = self.channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive",
            request_serializer=pb.ScaledObjectRef.SerializeToString,
            response_deserializer=pb.IsActiveResponse.FromString,
        )
        return call(REF, timeout=WAIT_S)


@pytest.fixture
def client() -> Iterator[_Client]:
    made = _Client()
    yield made
    made.channel.close()
    made.server.stop(grace=None).wait()


def test_the_count_is_the_metric_and_one_replica_is_one_unit(client: _Client) -> None:
    request = pb.GetMetricsRequest(scaledObjectRef=REF, metricName="poolwise_desired_replicas")
    answer = client.ask("GetMetrics", request, pb.GetMetricsResponse)
    assert [v.metricValue for v in answer.metricValues] == [11]
    spec = client.ask("GetMetricSpec", REF, pb.GetMetricSpecResponse).metricSpecs
    assert [s.targetSize for s in spec] == [1]
    assert client.ask("IsActive", REF, pb.IsActiveResponse).result


def test_unknown_counts_are_an_error_and_never_zero(client: _Client) -> None:
    client.counts = {}
    with pytest.raises(grpc.RpcError) as caught:
        client.ask("IsActive", REF, pb.IsActiveResponse)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_change_is_pushed(client: _Client) -> None:
    stream = client.stream()
    assert next(stream).result
    client.counts = {KEY: 0}
    assert not next(stream).result
    stream.cancel()


def test_missing_metadata_is_named(client: _Client) -> None:
    with pytest.raises(grpc.RpcError, match="lacks deployment, model"):
        client.ask("IsActive", pb.ScaledObjectRef(name="x"), pb.IsActiveResponse)
