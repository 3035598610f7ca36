"""A real Envoy that asks `zae-limiter serve`: what it lets pass, and servers that change, end and crash under load."""

import signal
from contextlib import contextmanager

import pytest
from envoy_proxy import Envoy
from local import eventually
from serve import PATIENCE, RULES, Load, table  # noqa: F401

#: Keys with many tokens, one for each thread of a load.
RICH = [f"key-rich-{number}" for number in range(6)]


@pytest.fixture(scope="module", autouse=True)
def rich(table):  # noqa: F811
    """Before a server has read limits, which it keeps for a minute."""
    for key in RICH:
        table.admin("entity", "create", key)
        table.admin("entity", "set-limits", key, "-l", "rpm:1/day:1000000")


@contextmanager
def proxied(*servers):
    envoy = Envoy(*servers)
    try:
        yield envoy
    finally:
        envoy.close()


@pytest.fixture(scope="module")
def envoy(table):  # noqa: F811
    server = table.serve()
    with proxied(server) as envoy:
        envoy.server = server
        yield envoy
    assert server.end() == 0


def test_requests_pass_up_to_the_limit(envoy):
    for left in [4, 3, 2, 1, 0]:
        status, fields = envoy.get("/keys", x_key="key-1", x_model="gpt-4")
        assert status == 200
        assert fields["ratelimit-policy"] == '"rpm";q=5;w=86400'
        assert fields["ratelimit"].startswith(f'"rpm";r={left};t=')
        assert (fields["x-ratelimit-limit"], fields["x-ratelimit-remaining"]) == ("5", str(left))
        assert "retry-after" not in fields
    for port in ["closed", "open"]:
        status, fields = envoy.get("/keys", port, x_key="key-1", x_model="gpt-4")
        assert (status, fields["x-envoy-ratelimited"]) == (429, "true")
        assert fields["ratelimit"].startswith('"rpm";r=0;t=')
        assert 16_000 < int(fields["retry-after"]) <= 17_280
    # Each value has a bucket of its own; a request without a descriptor is not limited.
    assert envoy.key("key-1", model="o3") == 200
    assert envoy.key("key-2") == 200
    for _ in range(7):
        assert envoy.get("/keys", x_key="key-1")[0] == 200
        assert envoy.get("/other", x_key="key-1", x_model="gpt-4")[0] == 200


def test_one_refused_descriptor_refuses_the_request(envoy):
    for _ in range(5):
        assert envoy.key("key-full") == 200
    two = {"x_key": "key-free", "x_other": "key-full", "x_model": "gpt-4"}
    assert envoy.get("/two", **two)[0] == 429
    eventually(lambda: envoy.server.left("key-free", "gpt-4") == 5, PATIENCE)
    assert envoy.get("/two", **{**two, "x_other": "key-other"})[0] == 200
    assert [envoy.server.left(key, "gpt-4") for key in ["key-free", "key-other"]] == [4, 4]


def test_hits_of_a_descriptor(envoy):
    fields = {"x_key": "key-metered", "x_model": "gpt-4"}
    assert envoy.get("/metered", **fields, x_hits="90")[0] == 200
    assert envoy.server.left("key-metered", "gpt-4", "tpm") == 100
    assert envoy.get("/metered", **fields, x_hits="11")[0] == 429
    assert envoy.get("/metered", **fields, x_hits="10")[0] == 200
    assert envoy.server.left("key-metered", "gpt-4", "tpm") == 0


def test_costs_that_are_known_after_the_response(envoy):
    left = lambda: envoy.server.left("key-charged", "gpt-4", "tpm")  # noqa: E731
    whole = left()
    for tokens, rest in [("50", whole - 50), ("5000", whole - 5050)]:
        assert envoy.get("/charged", x_key="key-charged", x_tokens=tokens)[0] == 200
        eventually(lambda: left() == rest, PATIENCE)
    # It is in debt, and a request that is refused costs nothing.
    assert envoy.get("/charged", x_key="key-charged", x_tokens="7")[0] == 429
    assert left() == whole - 5050


def test_a_limit_that_envoy_brings(envoy):
    assert [envoy.get("/bounded", x_key="key-bounded")[0] for _ in range(3)] == [200, 200, 429]


def test_a_reload_under_load_drops_nothing_and_lets_nothing_through(envoy):
    for _ in range(5):
        assert envoy.key("key-poor") == 200
    poor = lambda port: (envoy.key("key-poor", port), 429)  # noqa: E731

    def call(number):
        found, expected = poor("open") if number == 0 else poor("closed") if number == 1 else (envoy.key(RICH[number]), 200)
        assert found == expected

    def reloads(outcome):
        return envoy.server.sum_of("reloads_total", file="rules", outcome=outcome)

    load = Load(call, 6)
    try:
        for round_number in range(6):
            outcome = "refused" if round_number % 3 == 2 else "ok"
            before = reloads(outcome)
            more = "nonsense: true\n" if outcome == "refused" else f"# {round_number}\n"
            envoy.server.change_rules(RULES + more)
            envoy.server.signal(signal.SIGHUP)
            eventually(lambda outcome=outcome, before=before: load.errors or reloads(outcome) > before, PATIENCE)
            load.goes_on()
    finally:
        load.stop()
    assert envoy.stat("cluster.backend.ratelimit.error") == 0
    envoy.server.change_rules(RULES)


def test_what_passes_while_no_server_runs(table):  # noqa: F811
    server = table.serve()
    with proxied(server) as envoy:
        assert [envoy.key("key-crash", port) for port in ["closed", "open"]] == [200, 200]
        server.kill()
        assert [envoy.key("key-crash") for _ in range(7)] == [500] * 7
        assert [envoy.key("key-crash", "open") for _ in range(7)] == [200] * 7
        eventually(lambda: envoy.healthy() == 0, PATIENCE)
        assert [envoy.key("key-crash", port) for port in ["closed", "open"]] == [500, 200]
        # What was let through was not counted; what was taken before is.
        again = table.serve(grpc=server.grpc)
        eventually(lambda: envoy.key("key-crash") == 200, PATIENCE)
        assert [envoy.key("key-crash", "open") for _ in range(2)] == [200] * 2
        assert [envoy.key("key-crash", port) for port in ["closed", "open"]] == [429] * 2
    assert again.end() == 0


def test_one_of_two_servers_ends_under_load(table):  # noqa: F811
    servers = [table.serve("--drain-delay", "3s") for _ in range(2)]
    counts = dict.fromkeys(RICH, 0)
    models = [f"model-{number}" for number in range(len(RICH))]

    def call(number):
        assert envoy.key(RICH[number], model=models[number]) == 200
        counts[RICH[number]] += 1

    with proxied(*servers) as envoy:
        load = Load(call, len(RICH))
        try:
            load.goes_on(100)
            assert all(server.sum_of("descriptors_total", rule="rule-1", outcome="ok") for server in servers)
            servers[0].signal(signal.SIGTERM)
            assert servers[0].process.wait(PATIENCE) == 0, servers[0].log.read_text()
            assert envoy.healthy() == 1
            load.goes_on(100)
        finally:
            load.stop()
        assert envoy.stat("cluster.backend.ratelimit.error") == 0
    # Each took one token.
    for key, model in zip(RICH, models, strict=True):
        assert servers[1].left(key, model) == 1_000_000 - counts[key]
    assert servers[1].end() == 0
