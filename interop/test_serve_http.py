"""The HTTP API of `zae-limiter serve` under a client that is generated from its document."""

import importlib
import os
import subprocess
import sys
import time

import pytest
from local import eventually
from serve import PATIENCE, server, table  # noqa: F401
from test_serve_access import hashed

PROGRAMS = os.path.dirname(sys.executable)


class Api:
    """The generated client of a server. Answers have a status, header fields, and a parsed body of the document's type."""

    def __init__(self, package, url, token=None, **options):
        self.package = package
        self.models = importlib.import_module(f"{package}.models")
        client = importlib.import_module(f"{package}.client")
        options.update(base_url=url, timeout=PATIENCE)
        self.client = client.AuthenticatedClient(token=token, **options) if token else client.Client(**options)

    def call(self, operation, *arguments, **options):
        module = importlib.import_module(f"{self.package}.api.default.{operation}")
        return module.sync_detailed(*arguments, client=self.client, **options)

    def look(self, name, fields):
        return getattr(self.models, name).from_dict(fields)

    def acquire(self, entity, resource="gpt-4", **more):
        """Takes; further arguments in capitals are properties of the request, others are amounts."""
        fields = {name.lower(): value for name, value in more.items() if name.isupper()}
        consume = {name: value for name, value in more.items() if name.islower()}
        body = {"entity_id": entity, "resource": resource, "consume": consume, **fields}
        return self.call("acquire", body=self.look("Acquire", body))

    def lease(self, entity, *arguments, **more):
        answer = self.acquire(entity, *arguments, **more)
        assert answer.status_code == 200, answer.content
        return answer.parsed.lease

    def commit(self, lease, **actual):
        return self.call("commit_lease", lease, body=self.look("Commit", {"actual": actual}))

    def rollback(self, lease):
        return self.call("rollback_lease", lease)

    def extend(self, lease, ttl_ms):
        return self.call("extend_lease", lease, body=self.look("ExtendLeaseBody", {"ttl_ms": ttl_ms}))


@pytest.fixture(scope="module")
def generated(server, tmp_path_factory):  # noqa: F811
    """The name of the package of the client."""
    directory = tmp_path_factory.mktemp("generated")
    # Its format does not matter here.
    (directory / "config.yaml").write_text("post_hooks: []\n")
    command = [f"{PROGRAMS}/openapi-python-client", "generate", "--url", f"{server.http}/v1/openapi.json", "--meta", "none"]
    where = ["--output-path", directory / "limits_api", "--config", directory / "config.yaml"]
    # A part of the document that it does not understand would be a warning.
    done = subprocess.run([*command, *where, "--fail-on-warning"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(directory))
    yield "limits_api"
    sys.path.remove(str(directory))


@pytest.fixture(scope="module")
def api(generated, server):  # noqa: F811
    return Api(generated, server.http)


def test_a_lease_is_corrected_once(api, server):  # noqa: F811
    taken = api.acquire("key-1", rpm=1, tpm=800)
    assert (taken.status_code, taken.headers["ratelimit-policy"]) == (200, '"rpm";q=5;w=86400, "tpm";q=1000;w=86400')
    assert {limit.limit_name: limit.available for limit in taken.parsed.limits} == {"rpm": 4, "tpm": 200}
    lease = taken.parsed.lease
    assert (taken.parsed.on_expiry, taken.parsed.degraded, taken.parsed.bypassed) == ("keep", False, False)
    for repeated in [False, True]:
        ended = api.commit(lease, tpm=620)
        assert (ended.status_code, ended.parsed.ended, ended.parsed.repeated) == (200, "commit", repeated)
    for other in [api.rollback(lease), api.commit(lease, tpm=1), api.extend(lease, 70_000)]:
        assert (other.status_code, other.parsed.error, other.parsed.ended) == (409, "lease_ended", "commit")
    assert (server.left("key-1", "gpt-4", "rpm"), server.left("key-1", "gpt-4", "tpm")) == (4, 380)
    lease = api.lease("key-1", rpm=1, tpm=300)
    for repeated in [False, True]:
        ended = api.rollback(lease)
        assert (ended.parsed.ended, ended.parsed.repeated) == ("rollback", repeated)
    other = api.commit(lease)
    assert (other.status_code, other.parsed.ended) == (409, "rollback")
    # More than was taken can be charged.
    api.commit(api.lease("key-1", tpm=10), tpm=400)
    assert server.left("key-1", "gpt-4", "tpm") == -20
    assert (server.left("key-1", "gpt-4", "rpm")) == 4


def test_several_resources_and_leases_in_bodies(api, server):  # noqa: F811
    lease = api.lease("key-also", rpm=1, ALSO=[{"resource": "search", "consume": {"rpm": 2}}])
    extended = api.call("extend_lease_in_body", body=api.look("ExtendLeaseInBodyBody", {"lease": lease, "ttl_ms": 70_000}))
    assert (extended.status_code, extended.parsed.expires_at_ms > 60_000) == (200, True)
    used = {"lease": lease, "actual": {"rpm": 2}, "also": [{"resource": "search", "actual": {"rpm": 1}}]}
    committed = api.call("commit_lease_in_body", body=api.look("CommitLeaseInBodyBody", used))
    assert (committed.status_code, committed.parsed.ended) == (200, "commit")
    assert (server.left("key-also", "gpt-4"), server.left("key-also", "search")) == (3, 4)
    # All or nothing.
    refused = api.acquire("key-also", rpm=1, ALSO=[{"resource": "search", "consume": {"rpm": 5}}])
    assert refused.status_code == 429
    eventually(lambda: server.left("key-also", "gpt-4") == 3, PATIENCE)
    lease = api.lease("key-also", rpm=1, ALSO=[{"resource": "search", "consume": {"rpm": 1}}])
    rolled_back = api.call("rollback_lease_in_body", body=api.look("RollbackLeaseInBodyBody", {"lease": lease}))
    assert rolled_back.parsed.ended == "rollback"
    assert (server.left("key-also", "gpt-4"), server.left("key-also", "search")) == (3, 4)


def test_looking_takes_nothing(api):
    look = {"entity_id": "key-look", "resource": "gpt-4"}
    for consume, admitted, wait in [({"rpm": 5}, True, 0), ({"rpm": 6}, False, None)]:
        checked = api.call("check", body=api.look("Look", {**look, "consume": consume})).parsed
        assert (checked.admitted, checked.retry_after_ms) == (admitted, wait)
    found = api.call("availability", **look).parsed
    assert [(limit.limit_name, limit.available) for limit in found.limits] == [("rpm", 5), ("tpm", 1000)]


def test_a_request_waits_for_tokens(api, table):  # noqa: F811
    table.admin("entity", "create", "key-waits")
    table.admin("entity", "set-limits", "key-waits", "-l", "rps:1/sec")
    taken = [api.acquire("key-waits", rps=1, WAIT_MS=9000) for _ in range(3)]
    assert [answer.status_code for answer in taken] == [200] * 3


def test_refusals(api, table):  # noqa: F811
    assert api.acquire("key-refused", rpm=4, LEASE=False).parsed.lease is None
    refused = api.acquire("key-refused", rpm=2, tpm=1)
    assert (refused.status_code, refused.parsed.error) == (429, "rate_limit_exceeded")
    [over] = [limit for limit in refused.parsed.limits if limit.exceeded]
    assert (over.limit_name, over.available, over.requested, over.capacity) == ("rpm", 1, 2, 5)
    assert 16_000 < over.retry_after_seconds <= 17_280
    assert refused.headers["ratelimit-policy"] == '"rpm";q=5;w=86400, "tpm";q=1000;w=86400'
    assert refused.headers["ratelimit"].startswith('"rpm";r=1;t=')
    assert 0 <= int(refused.headers["retry-after"]) - refused.parsed.retry_after_seconds <= 1
    assert refused.parsed.retry_after_ms == round(refused.parsed.retry_after_seconds * 1000)
    # It comes too late for a wait.
    assert api.acquire("key-refused", rpm=2, WAIT_MS=9000).status_code == 429
    never = api.acquire("key-refused", rpm=6)
    assert (never.status_code, never.parsed.retry_after_ms, "retry-after" in never.headers) == (413, None, False)
    for wrong, field in [
        (api.acquire("key#1", rpm=1), "entity_id"),
        (api.acquire("key-refused", "", rpm=1), "resource"),
        (api.acquire("key-refused", none=1), "consume.none"),
        (api.acquire("key-refused", rpm=1, TTL_MS=1), "ttl_ms"),
    ]:
        assert (wrong.status_code, wrong.parsed.field) == (400, field)
    table.admin("namespace", "register", "empty")
    empty = table.serve("--namespace", "empty")
    unknown = Api(api.package, empty.http).acquire("key-refused", rpm=1)
    assert (unknown.status_code, unknown.parsed.error) == (404, "not_configured")
    assert empty.end() == 0


def test_leases_of_others_and_made_up_ones(api, table, server):  # noqa: F811
    other = table.serve()
    lease = Api(api.package, other.http).lease("key-unknown", rpm=1)
    for text in ["x", "zl1.e30.AAAA", lease, lease[:-1], lease.lower()]:
        for answer in [api.commit(text), api.rollback(text), api.extend(text, 70_000)]:
            assert (answer.status_code, answer.parsed.error) == (404, "unknown_lease")
    assert server.left("key-unknown", "gpt-4") == 4
    assert other.end() == 0


def test_what_becomes_of_leases_that_expire(api, server):  # noqa: F811
    kept = api.acquire("key-kept", rpm=1, TTL_MS=1000).parsed
    given = api.acquire("key-given", rpm=1, TTL_MS=1000, ON_EXPIRY="give_back").parsed
    extended = api.lease("key-extended", rpm=1, TTL_MS=1000)
    assert api.extend(extended, 600_000).status_code == 200
    while time.time() * 1000 <= max(kept.expires_at_ms, given.expires_at_ms) + 100:
        time.sleep(0.1)
    for lease in [kept.lease, given.lease]:
        for answer in [api.rollback(lease), api.commit(lease), api.extend(lease, 70_000)]:
            assert (answer.status_code, answer.parsed.error) == (410, "lease_expired")
    eventually(lambda: server.left("key-given", "gpt-4") == 5, PATIENCE * 2)
    assert api.rollback(given.lease).status_code == 410
    assert api.rollback(extended).status_code == 200
    assert [server.left(key, "gpt-4") for key in ["key-kept", "key-given", "key-extended"]] == [4, 5, 5]


def test_tokens_and_web_pages(api, table, server, tmp_path):  # noqa: F811
    of_page = Api(api.package, server.http, headers={"Origin": "https://example.com"})
    refused = of_page.acquire("key-page", rpm=1)
    assert (refused.status_code, refused.parsed.error) == (403, "forbidden")
    (tmp_path / "tokens").write_text(hashed("first"))
    closed = table.serve("--token-file", tmp_path / "tokens")
    for token, status in [(None, 401), ("second", 401), ("first", 200)]:
        assert Api(api.package, closed.http, token).acquire("key-token", rpm=1).status_code == status
    assert closed.end() == 0
