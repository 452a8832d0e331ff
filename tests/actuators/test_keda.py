"""The external scaler, asked by a real gRPC client on loopback."""

import socket
import threading
from collections.abc import Iterator

import pytest

grpc = pytest.importorskip("grpc", reason="needs the extra keda (grpcio, protobuf)")

from actuators.keda import externalscaler_pb2 as pb  # noqa: E402
from actuators.keda.scaler import listening  # noqa: E402
from planner.domain.errors import NoFreePortError  # noqa: E402
from tests.serving.telemetry.servers import until  # noqa: E402

KEY = ("chat", "m", "decode", "h100", "2")
METADATA = dict(zip(("deployment", "model", "role", "accelerator", "tp"), KEY, strict=True))
REF = pb.ScaledObjectRef(name="decode", namespace="serving", scalerMetadata=METADATA)
WAIT_S = 20
STREAMS = 500


class Client:
    """KEDA's side of a connection."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def ask(self, name, request, answer):
        call = self.channel.unary_unary(
            f"/externalscaler.ExternalScaler/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=WAIT_S)

    def count(self, ref: pb.ScaledObjectRef = REF) -> int:
        request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName="poolwise_desired_replicas")
        (value,) = self.ask("GetMetrics", request, pb.GetMetricsResponse).metricValues
        return value.metricValue

    def stream(self, ref: pb.ScaledObjectRef = REF):
        call = self.channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive",
            request_serializer=pb.ScaledObjectRef.SerializeToString,
            response_deserializer=pb.IsActiveResponse.FromString,
        )
        return call(ref, timeout=3 * WAIT_S)


class Asked(Client):
    """A client of a scaler whose counts the test sets."""

    def __init__(self, port: int) -> None:
        super().__init__(f"127.0.0.1:{port}")
        self.counts: dict[tuple[str, ...], int] = {KEY: 11}


@pytest.fixture
def client() -> Iterator[Asked]:
    with listening("127.0.0.1", 0) as listener:
        made = Asked(listener.port)
        listener.start(lambda: made.counts, poll_s=0.01)
        yield made
        made.channel.close()


def test_the_count_is_the_metric_and_one_replica_is_one_unit(client: Asked) -> None:
    assert client.count() == 11
    spec = client.ask("GetMetricSpec", REF, pb.GetMetricSpecResponse).metricSpecs
    assert [s.targetSize for s in spec] == [1]
    assert client.ask("IsActive", REF, pb.IsActiveResponse).result


def test_unknown_counts_are_an_error_and_never_zero(client: Asked) -> None:
    client.counts = {}
    with pytest.raises(grpc.RpcError) as caught:
        client.ask("IsActive", REF, pb.IsActiveResponse)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_change_is_pushed(client: Asked) -> None:
    stream = client.stream()
    assert next(stream).result
    client.counts = {KEY: 0}
    assert not next(stream).result
    stream.cancel()


def test_missing_metadata_is_named(client: Asked) -> None:
    with pytest.raises(grpc.RpcError, match="lacks deployment, model"):
        client.ask("IsActive", pb.ScaledObjectRef(name="x"), pb.IsActiveResponse)


def test_hundreds_of_streams_are_open_and_a_call_beside_them_is_answered(client: Asked) -> None:
    streams = [client.stream() for _ in range(STREAMS)]
    assert all(next(stream).result for stream in streams)
    client.counts = {KEY: 0}
    assert not any(next(stream).result for stream in streams)
    assert client.count() == 0
    for stream in streams:
        stream.cancel()


def test_more_calls_than_allowed_are_refused_until_one_ends() -> None:
    with listening("127.0.0.1", 0, most_calls=2) as listener:
        listener.start(lambda: {KEY: 11}, poll_s=0.01)
        client = Client(f"127.0.0.1:{listener.port}")
        streams = [client.stream() for _ in range(2)]
        assert all(next(stream).result for stream in streams)
        with pytest.raises(grpc.RpcError) as caught:
            client.count()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        until(lambda: _is_answered(client), "no call is answered though a stream has ended")
        streams[1].cancel()
        client.channel.close()


def _is_answered(client: Client) -> bool:
    try:
        return client.count() == 11
    except grpc.RpcError:
        return False


def test_open_streams_end_with_the_server_and_so_do_its_threads() -> None:
    with listening("127.0.0.1", 0) as listener:
        listener.start(lambda: {KEY: 1}, poll_s=0.01)
        client = Client(f"127.0.0.1:{listener.port}")
        stream = client.stream()
        assert next(stream).result
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert "keda" not in {thread.name for thread in threading.enumerate()}
    client.channel.close()


def test_a_call_before_the_start_waits_for_the_answer() -> None:
    with listening("127.0.0.1", 0) as listener:
        client = Client(f"127.0.0.1:{listener.port}")
        answered: list[int] = []
        asking = threading.Thread(target=lambda: answered.append(client.count()))
        asking.start()
        asking.join(0.3)
        assert answered == []
        listener.start(lambda: {KEY: 7})
        asking.join(WAIT_S)
        assert answered == [7]
        client.channel.close()


def test_a_taken_port_is_refused_even_to_a_second_scaler() -> None:
    with listening("127.0.0.1", 0) as first:
        with pytest.raises(NoFreePortError, match=f"port {first.port}: choose another"):
            listening("127.0.0.1", first.port).__enter__()
        with socket.create_connection(("127.0.0.1", first.port), timeout=WAIT_S):
            pass
