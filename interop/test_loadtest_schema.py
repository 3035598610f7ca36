"""The JSON Schema of scenario files accepts what the command accepts."""

import copy
import json
import os
import pathlib
import subprocess

import jsonschema
import yaml

OUR_PROGRAM = os.environ["ZAE_LIMITER_CLI"]
EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "loadtest" / "chat.yaml"

# A path in the example, what is put there, and whether the result is a scenario. None removes it.
CHANGES = [
    ((), {}, False),
    (("more",), 1, False),
    (("system",), None, True),
    (("shapes",), None, True),
    (("users",), None, False),
    (("users",), [], False),
    (("resources", "gpt 4"), {"limits": {}}, False),
    (("resources", "a" * 64), {"limits": {}}, True),
    (("resources", "a" * 65), {"limits": {}}, False),
    (("system", "limits", "rpm", "capacity"), 0, False),
    (("system", "limits", "rpm", "capacity"), 10**15, True),
    (("system", "limits", "rpm", "capacity"), 10**15 + 1, False),
    (("system", "limits", "rpm", "capacity"), 1.5, False),
    (("system", "limits", "rpm", "refill_period"), 10**9, True),
    (("system", "limits", "rpm", "refill_period"), 10**9 + 1, False),
    (("system", "limits", "rpm", "refill_period"), 0, False),
    (("system", "limits", "wcu"), {"capacity": 1}, False),
    (("system", "limits", "r p"), {"capacity": 1}, False),
    (("shapes", "Morning"), [], False),
    (("shapes", "Morning", 0, "seconds"), 0, False),
    (("shapes", "Morning", 0, "seconds"), 0.5, True),
    (("shapes", "Morning", 0, "seconds"), 604801, False),
    (("shapes", "Morning", 0, "users"), 0, True),
    (("shapes", "Morning", 0, "users"), -1, False),
    (("shapes", "Morning", 0, "users"), 1_000_001, False),
    (("users", 0, "name"), "", False),
    (("users", 0, "name"), "two words", False),
    (("users", 0, "name"), "Other", True),
    (("users", 0, "weight"), 0, False),
    (("users", 0, "weight"), 10**6, True),
    (("users", 0, "weight"), 10**6 + 1, False),
    (("users", 0, "entity"), {}, False),
    (("users", 0, "entity"), {"one": {"name": "u"}}, True),
    (("users", 0, "entity"), {"one": {"name": ""}}, False),
    (("users", 0, "entity"), {"one": {"name": "a b"}}, False),
    (("users", 0, "entity"), {"one": {"name": "u"}, "each": {"prefix": "k"}}, False),
    (("users", 0, "entity"), {"each": {"prefix": ""}}, True),
    (("users", 0, "entity"), {"each": {"prefix": "a" * 240}}, True),
    (("users", 0, "entity"), {"each": {"prefix": "a" * 257}}, False),
    (("users", 0, "entity"), {"uniform": {"prefix": "k", "count": 0}}, False),
    (("users", 0, "entity"), {"uniform": {"prefix": "k", "count": 10**6}}, True),
    (("users", 0, "entity"), {"zipf": {"prefix": "k", "count": 5}}, False),
    (("users", 0, "entity"), {"zipf": {"prefix": "k", "count": 5, "exponent": 10}}, True),
    (("users", 0, "entity"), {"zipf": {"prefix": "k", "count": 5, "exponent": 10.1}}, False),
    (("users", 0, "entity"), {"random": {}}, False),
    (("users", 0, "pause"), None, True),
    (("users", 0, "pause"), {"min": 0}, False),
    (("users", 0, "pause"), {"min": 0, "max": 604800}, True),
    (("users", 0, "pause"), {"min": -1, "max": 1}, False),
    (("users", 0, "tasks"), [], False),
    (("users", 0, "tasks", 0, "resources"), [], False),
    (("users", 0, "tasks", 0, "acquire"), {}, False),
    (("users", 0, "tasks", 0, "acquire", "rpm"), -1, False),
    (("users", 0, "tasks", 0, "acquire", "rpm"), 600, True),
    (("users", 0, "tasks", 0, "acquire", "rpm"), 10**15 + 1, False),
    (("users", 0, "tasks", 0, "actual", "tpm"), 10**15, True),
    (("users", 0, "tasks", 0, "actual", "tpm"), {"min": 1, "max": 10**15 + 1}, False),
    (("users", 0, "tasks", 0, "acquire", "rpm"), {"min": 1}, False),
    (("users", 0, "tasks", 0, "acquire", "rpm"), "1", False),
    (("users", 0, "tasks", 0, "actual"), None, True),
    (("users", 0, "tasks", 0, "available"), False, True),
    (("users", 0, "tasks", 0, "available"), True, False),
    (("users", 0, "tasks", 1, "available"), False, False),
    (("users", 0, "tasks", 1, "acquire"), {"rpm": 1}, False),
    (("users", 0, "tasks", 1, "actual"), {"rpm": 1}, False),
    (("users", 0, "tasks", 1, "wait"), 1, False),
]

# Changes that only the command refuses, as values contradict each other.
CONTRADICTIONS = [
    (("resources",), None),
    (("users", 0, "pause"), {"min": 2, "max": 1}),
    (("users", 0, "tasks", 0, "resources"), ["embedding"]),
    (("users", 0, "tasks", 0, "acquire", "rpm"), 601),
    (("users", 0, "tasks", 0, "acquire", "rph"), 1),
    (("users", 0, "tasks", 0, "acquire", "tpm"), {"min": 2, "max": 1}),
    (("users", 0, "tasks", 0, "actual"), {"rph": 1}),
]


def changed(example, path, value):
    if not path:
        return value
    result = copy.deepcopy(example)
    at = result
    for part in path[:-1]:
        at = at[part]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return result


def is_read(folder, scenario):
    """Whether the command accepts it: then it misses the table, which is looked for afterwards."""
    file = folder / "scenario.yaml"
    file.write_text(json.dumps(scenario))
    command = [OUR_PROGRAM, "loadtest", "run", "--local", "--endpoint-url", f"embedded:{folder}/none", "-f", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode != 0
    assert ("scenario.yaml: " in ran.stderr) != ("none" in ran.stderr.replace("scenario.yaml", "")), ran.stderr
    return "scenario.yaml: " not in ran.stderr


def test_the_schema_accepts_what_the_command_accepts(tmp_path):
    schema = json.loads(subprocess.check_output([OUR_PROGRAM, "loadtest", "schema"]))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    example = yaml.safe_load(EXAMPLE.read_text())
    for path, value, right in [((), example, True), *CHANGES]:
        scenario = changed(example, path, value)
        assert validator.is_valid(scenario) == right, (path, value)
        assert is_read(tmp_path, scenario) == right, (path, value)
    for path, value in CONTRADICTIONS:
        scenario = changed(example, path, value)
        assert validator.is_valid(scenario), (path, value)
        assert not is_read(tmp_path, scenario), (path, value)
