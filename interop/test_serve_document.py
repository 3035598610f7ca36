"""The OpenAPI document of `zae-limiter serve`, and whether answers are as it says: schemathesis, and what it does not reach."""

import copy
import json
import os
import subprocess
import sys
import time

import pytest
from serve import server, table  # noqa: F401

SCHEMATHESIS = os.path.join(os.path.dirname(sys.executable), "schemathesis")


@pytest.fixture(scope="module")
def document(server):  # noqa: F811
    status, text = server.get("/v1/openapi.json")
    assert status == 200
    return json.loads(text)


def narrow(node, values):
    """Lets properties and parameters of these names have only these values."""
    if isinstance(node, list):
        for inner in node:
            narrow(inner, values)
    elif isinstance(node, dict):
        for name in node.get("properties", {}).keys() & values.keys():
            node["properties"][name] = values[name]
        if "in" in node and node["name"] in values:
            node["schema"] = values[node["name"]]
        narrow(list(node.values()), values)


def sent(document):
    """The parts of a document that are about what clients send."""
    for path in document["paths"].values():
        yield path.get("parameters", [])
        for operation in path.values():
            if isinstance(operation, dict):
                yield operation.get("parameters", [])
                yield operation.get("requestBody", {})
    for name in ["Acquire", "Look", "Commit"]:
        yield document["components"]["schemas"][name]


def conform(directory, document, server, *options):  # noqa: F811
    """Lets schemathesis make up requests; each answer is as the document says."""
    (directory / "openapi.json").write_text(json.dumps(document))
    command = [SCHEMATHESIS, "run", directory / "openapi.json", "--url", server.http, "--no-color", "--continue-on-failure"]
    bounds = ["--max-examples", "30", "--generation-deterministic", "--request-timeout", "30"]
    # A document cannot say which limits an entity has, so requests of the right form can be wrong.
    checks = ["--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
    done = subprocess.run([*command, *bounds, *checks, *options], cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


def answered(server):  # noqa: F811
    """The statuses that a server has answered with."""
    name = 'zae_limiter_server_requests_total{port="http",code="'
    lines = server.get("/metrics")[1].splitlines()
    return {int(line[len(name) :].split('"')[0]) for line in lines if line.startswith(name)}


def test_answers_to_any_requests(table, document, tmp_path):  # noqa: F811
    server = table.serve()  # noqa: F811
    conform(tmp_path, document, server)
    found = answered(server)
    assert {200, 400, 404, 405} <= found
    assert max(found) < 500
    assert server.end() == 0


def test_answers_to_requests_with_values_of_the_table(table, document, tmp_path):  # noqa: F811
    server = table.serve()  # noqa: F811

    def lease(resource, **more):
        body = {"entity_id": "key-fuzzed", "resource": resource, "consume": {"rpm": 1}, **more}
        status, answer = server.post("/v1/acquire", body)
        assert status == 200
        return answer

    leases = [lease(f"model-{number}")["lease"] for number in range(10)]
    expired = lease("expired", ttl_ms=1000)
    while time.time() * 1000 <= expired["expires_at_ms"] + 100:
        time.sleep(0.1)
    amounts = {"type": "object", "properties": {"rpm": {"enum": [1, 2, 6]}, "tpm": {"enum": [0, 100]}}, "additionalProperties": False}
    values = {
        "entity_id": {"enum": ["key-1", "key-2"]},
        "resource": {"enum": [f"model-{number}" for number in range(3)]},
        "lease": {"enum": [*leases, expired["lease"]]},
        "consume": {**amounts, "minProperties": 1},
        "actual": amounts,
    }
    described = copy.deepcopy(document)
    # The property `lease` of this request says whether there is one.
    whether = described["components"]["schemas"]["Acquire"]["properties"].pop("lease")
    narrow(list(sent(described)), values)
    described["components"]["schemas"]["Acquire"]["properties"]["lease"] = whether
    conform(tmp_path, described, server, "--mode", "positive")
    found = answered(server)
    assert {200, 409, 410, 413, 429} <= found
    assert max(found) < 500
    assert server.end() == 0


WITH_BODY = ["/v1/acquire", "/v1/check", "/v1/leases/{lease}/commit", "/v1/leases/commit", "/v1/leases/extend", "/v1/leases/rollback"]


@pytest.mark.parametrize("path", WITH_BODY)
def test_the_answer_to_a_long_body_is_described(server, document, path):  # noqa: F811
    body = {"entity_id": "x" * 70_000}
    status, answer = server.post(path.replace("{lease}", "x"), body)
    assert (status, answer["error"]) == (413, "body_too_large")
    assert str(status) in document["paths"][path]["post"]["responses"]


@pytest.mark.parametrize("path", WITH_BODY)
def test_the_answer_to_a_web_page_is_described(server, document, path):  # noqa: F811
    status, answer = server.post(path.replace("{lease}", "x"), {}, Origin="https://example.com")
    assert (status, answer["error"]) == (403, "forbidden")
    assert str(status) in document["paths"][path]["post"]["responses"]


def test_the_answer_to_a_request_that_takes_too_long_is_described(table, document):  # noqa: F811
    server = table.serve("--request-timeout", "1s")  # noqa: F811
    with table.frozen():
        status, answer = server.post("/v1/acquire", {"entity_id": "key-late", "resource": "api", "consume": {"rpm": 1}})
    server.kill()
    assert answer["error"] == "request_timeout"
    assert str(status) in document["paths"]["/v1/acquire"]["post"]["responses"]


def test_numbers_without_a_fraction_are_integers(server):  # noqa: F811
    body = {"entity_id": "key-float", "resource": "api", "consume": {"rpm": 1.0}, "ttl_ms": 60_000.0}
    assert server.post("/v1/acquire", body)[0] == 200


def test_the_document_says_what_a_name_is(server, document):  # noqa: F811
    for name in ["entity_id", "resource"]:
        assert {"pattern", "maxLength"} <= document["components"]["schemas"]["Acquire"]["properties"][name].keys()
