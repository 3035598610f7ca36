"""The rate limit service of `zae-limiter serve` under Python's gRPC and the protocol as Envoy publishes it."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from envoy.type.v3 import ratelimit_unit_pb2
from google.protobuf import wrappers_pb2
from local import eventually
from serve import PATIENCE, Table, server, table  # noqa: F401

OK = rls_pb2.RateLimitResponse.OK
OVER_LIMIT = rls_pb2.RateLimitResponse.OVER_LIMIT
UNIT = rls_pb2.RateLimitResponse.RateLimit.Unit


def descriptor(hits=None, limit=None, **entries):
    made = ratelimit_pb2.RateLimitDescriptor(limit=limit)
    for key, value in entries.items():
        made.entries.add(key=key, value=value)
    if hits is not None:
        made.hits_addend.CopyFrom(wrappers_pb2.UInt64Value(value=hits))
    return made


def override(requests, unit):
    return ratelimit_pb2.RateLimitDescriptor.RateLimitOverride(requests_per_unit=requests, unit=unit)


def request(*descriptors, domain="gateway", hits=0):
    return rls_pb2.RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits)


def of_key(key, model="gpt-4", hits=0):
    return request(descriptor(api_key=key, model=model), hits=hits)


def fields(response):
    return {field.key: field.value for field in response.response_headers_to_add}


class Client:
    def __init__(self, server):
        self.channel = grpc.insecure_channel(server.grpc)
        self.stub = rls_pb2_grpc.RateLimitServiceStub(self.channel)

    def ask(self, asked, timeout=PATIENCE):
        return self.stub.ShouldRateLimit(asked, timeout=timeout)

    def code(self, asked):
        """The overall code, or that of the failure."""
        try:
            return self.ask(asked).overall_code
        except grpc.RpcError as err:
            return err.code()


@pytest.fixture
def client(server):  # noqa: F811
    client = Client(server)
    yield client
    client.channel.close()


def test_a_key_is_admitted_up_to_its_limit_and_told_how_it_stands(client):
    for left in [4, 3, 2, 1, 0]:
        response = client.ask(of_key("key-1"))
        assert response.overall_code == OK
        [status] = response.statuses
        assert (status.code, status.limit_remaining) == (OK, left)
        limit = status.current_limit
        assert (limit.name, limit.requests_per_unit, limit.unit) == ("rpm", 5, UNIT.Value("DAY"))
        told = fields(response)
        assert told["ratelimit-policy"] == '"rpm";q=5;w=86400'
        assert told["ratelimit"].startswith(f'"rpm";r={left};t=')
        assert (told["x-ratelimit-limit"], told["x-ratelimit-remaining"]) == ("5", str(left))
        assert "retry-after" not in told
    response = client.ask(of_key("key-1"))
    assert response.overall_code == OVER_LIMIT
    [status] = response.statuses
    assert (status.code, status.limit_remaining) == (OVER_LIMIT, 0)
    # One comes each 17280 s.
    assert 16_000 < status.duration_until_reset.seconds <= 17_280
    assert 16_000 < int(fields(response)["retry-after"]) <= 17_280
    # The order of entries has no meaning; another value is another bucket.
    assert client.ask(request(descriptor(model="gpt-4", api_key="key-1"))).overall_code == OVER_LIMIT
    assert client.ask(of_key("key-1", model="o3")).overall_code == OK
    assert client.ask(of_key("key-2")).overall_code == OK


def test_hits_of_the_request_and_of_the_descriptor(client, server):  # noqa: F811
    def metered(hits, of_request):
        return request(descriptor(metered="key-hits", model="gpt-4", hits=hits), hits=of_request)

    assert client.ask(metered(None, 20)).overall_code == OK
    assert server.left("key-hits", "gpt-4", "tpm") == 800
    # The hits of the descriptor are stronger.
    assert client.ask(metered(30, 20)).overall_code == OK
    assert server.left("key-hits", "gpt-4", "tpm") == 500
    assert server.left("key-hits", "gpt-4", "rpm") == 3
    response = client.ask(metered(51, 1))
    assert response.overall_code == OVER_LIMIT
    assert response.statuses[0].current_limit.name == "tpm"
    assert client.ask(metered(2**64 - 1, 1)).overall_code == OVER_LIMIT
    assert client.ask(metered(0, 20)).overall_code == OK
    assert server.left("key-hits", "gpt-4", "tpm") == 500
    assert client.ask(metered(None, 2**32 - 1)).overall_code == OVER_LIMIT


def bounded(key, requests, unit="HOUR"):
    unit = ratelimit_unit_pb2.RateLimitUnit.Value(unit)
    return request(descriptor(bounded=key, limit=override(requests, unit)))


def test_limits_that_a_descriptor_brings(client):
    for left in [1, 0]:
        response = client.ask(bounded("key-bounded", 2))
        assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, left)
        limit = response.statuses[0].current_limit
        assert (limit.requests_per_unit, limit.unit) == (2, UNIT.Value("HOUR"))
    assert client.ask(bounded("key-bounded", 2)).overall_code == OVER_LIMIT
    assert client.ask(bounded("key-zero", 0)).overall_code == OVER_LIMIT
    assert client.ask(bounded("key-unknown", 7, "UNKNOWN")).overall_code == OVER_LIMIT
    # A rule without `override` keeps the stored limit.
    day = ratelimit_unit_pb2.RateLimitUnit.Value("DAY")
    response = client.ask(request(descriptor(api_key="key-stored", model="o3", limit=override(9, day))))
    assert response.statuses[0].current_limit.requests_per_unit == 5


@pytest.mark.parametrize("unit", ["SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"])
def test_a_limit_that_a_descriptor_brings_is_told_in_its_unit(client, unit):
    response = client.ask(bounded(f"key-{unit}", 7, unit))
    assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, 6)
    limit = response.statuses[0].current_limit
    assert (limit.requests_per_unit, limit.unit) == (7, UNIT.Value(unit))


def test_unknown_domains_and_descriptors_pass(client, server):  # noqa: F811
    unknown = [
        descriptor(api_key="key-open"),
        descriptor(api_key="key-open", model="gpt-4", path="/"),
        descriptor(remote_address="192.0.2.1"),
    ]
    response = client.ask(request(*unknown))
    assert response.overall_code == OK
    assert [(status.code, status.HasField("current_limit")) for status in response.statuses] == [(OK, False)] * 3
    response = client.ask(request(descriptor(api_key="key-open", model="gpt-4"), domain="other", hits=1000))
    assert response.overall_code == OK
    assert server.left("key-open", "gpt-4") == 5
    for _ in range(7):
        response = client.ask(request(descriptor(shadowed="key-shadowed")))
        assert (response.overall_code, len(response.response_headers_to_add)) == (OK, 0)
    assert server.left("key-shadowed", "api") == 0


def test_one_refused_descriptor_gives_back_what_the_others_took(client, server):  # noqa: F811
    assert client.ask(of_key("key-full", hits=5)).overall_code == OK
    both = request(descriptor(api_key="key-free", model="gpt-4"), descriptor(api_key="key-full", model="gpt-4"))
    response = client.ask(both)
    assert response.overall_code == OVER_LIMIT
    assert [status.code for status in response.statuses] == [OK, OVER_LIMIT]
    eventually(lambda: server.left("key-free", "gpt-4") == 5, PATIENCE)


def test_malformed_requests_are_refused_by_code(client, server):  # noqa: F811
    key = {"api_key": "key-malformed", "model": "gpt-4"}
    for wrong in [
        request(descriptor(**key), domain=""),
        request(),
        request(ratelimit_pb2.RateLimitDescriptor()),
        request(*[descriptor(**key)] * 65),
    ]:
        assert client.code(wrong) == grpc.StatusCode.INVALID_ARGUMENT, wrong
    assert client.code(request(descriptor(misconfigured="key-1"))) == grpc.StatusCode.INTERNAL
    # Names that no entity can have are over the limit, and not a failure.
    assert client.code(of_key("not a name")) == OVER_LIMIT
    assert client.code(of_key("x" * 70_000)) == grpc.StatusCode.OUT_OF_RANGE
    service = "/envoy.service.ratelimit.v3.RateLimitService"
    for path in [f"{service}/Other", "/envoy.service.ratelimit.v2.RateLimitService/ShouldRateLimit"]:
        with pytest.raises(grpc.RpcError) as failed:
            client.channel.unary_unary(path)(b"", timeout=PATIENCE)
        assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as failed:
        client.channel.unary_unary(f"{service}/ShouldRateLimit")(b"\xff\xff\xff", timeout=PATIENCE)
    # tonic's code for bytes that it cannot decode.
    assert failed.value.code() == grpc.StatusCode.INTERNAL
    assert server.left("key-malformed", "gpt-4") == 5


def test_many_clients_get_no_more_than_the_limit(table, server):  # noqa: F811
    def admitted(number):
        client = Client([server, second][number % 2])
        codes = [client.ask(request(descriptor(metered="key-shared", model="o3", hits=5))).overall_code for _ in range(6)]
        client.channel.close()
        return codes.count(OK)

    table.admin("entity", "create", "key-shared")
    table.admin("entity", "set-limits", "key-shared", "-l", "rpm:1000/day", "-l", "tpm:1000/day")
    second = table.serve()
    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(admitted, range(8)))
    # 20 fit. One that lost too many races is refused with tokens left.
    assert 15 <= total <= 20
    assert server.left("key-shared", "o3", "tpm") == 1000 - 50 * total
    assert second.end() == 0


def test_a_call_that_its_client_gives_up_keeps_no_tokens(table, server, client):  # noqa: F811
    assert client.ask(of_key("key-late")).overall_code == OK
    with table.frozen():
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as failed:
                client.ask(of_key("key-late"), timeout=0.2)
            assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: server.sum_of("requests_in_flight", port="grpc") == 0, PATIENCE)
    eventually(lambda: server.left("key-late", "gpt-4") == 4, PATIENCE)
    assert client.ask(of_key("key-late")).statuses[0].limit_remaining == 3


def test_without_the_table_calls_are_unavailable(tmp_path):
    table = Table(tmp_path)  # noqa: F811
    try:
        client = Client(table.serve("--request-timeout", "3s"))
        assert client.code(of_key("key-1")) == OK
        table.kill()
        assert client.code(of_key("key-1")) == grpc.StatusCode.UNAVAILABLE
        table.up()
        client.channel.close()
    finally:
        table.close()
