"""Both command lines on one table: what either writes, both show, in the same words."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest
from bridge import Refused
from click.testing import CliRunner
from zae_limiter.cli import cli as their_cli

OUR_PROGRAM = os.environ["ZAE_LIMITER_CLI"]
DOCUMENTATION = pathlib.Path(__file__).parent.parent / "docs" / "compatibility.md"


class Shell:
    """The two programs on one table. Each call returns what was printed and the exit code."""

    def __init__(self, world):
        self.world = world
        self.place = ["--name", world.stack, "--region", "us-east-1", "--endpoint-url", world.endpoint]

    def run(self, who, *arguments):
        arguments = [*arguments, *self.place]
        if who == "theirs":
            done = CliRunner().invoke(their_cli, arguments)
            return done.output, done.exit_code
        done = subprocess.run([OUR_PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
        # Ours repeats in a piece of advice where the table is.
        advice = f" -n {self.world.stack} " + " ".join(self.place[2:])
        return (done.stdout + done.stderr).replace(advice, ""), done.returncode


def lines(output):
    """Output as lines of words, sorted (the original shows limits as the table returns them), without rules,
    separators of thousands and notes on standard error, which only ours writes."""
    output = re.sub(r"(?<=\d),(?=\d{3})", "", output)
    rows = ([word for word in line.split() if not re.fullmatch(r"[-+|=─—]+", word)] for line in output.splitlines())
    return sorted(row for row in rows if row and row[0] != "Note:")


@pytest.fixture
def shell(world):
    return Shell(world)


WRITES = [
    ["entity", "create", "proj-1", "--display-name", "Production"],
    ["entity", "create", "key-1", "--parent", "proj-1", "--cascade"],
    ["entity", "create", "key-2", "--parent", "proj-1"],
    ["system", "set-defaults", "-l", "rpm:100", "-l", "tpm:10000/hour:20000", "--on-unavailable", "allow"],
    ["resource", "set-defaults", "gpt-4", "-l", "rpm:50", "-l", "tph:7/2hour"],
    ["resource", "set-defaults", "claude-3", "-l", "rpm:5/sec"],
    ["entity", "set-limits", "key-1", "--resource", "gpt-4", "-l", "rpm:500/90sec"],
    ["entity", "set-limits", "key-1", "--resource", "_default_", "-l", "tpd:1000000/day"],
    ["entity", "set-limits", "key-2", "--resource", "gpt-4", "-l", "rpm:1"],
    ["namespace", "register", "team-a", "team-b"],
    ["namespace", "delete", "team-b", "--yes"],
]
UNDO = [
    ["entity", "delete-limits", "key-2", "--resource", "gpt-4", "--yes"],
    ["resource", "delete-defaults", "claude-3", "--yes"],
    ["system", "delete-defaults", "--yes"],
]
READS = [
    ["entity", "show", "key-1"],
    ["entity", "show", "proj-1"],
    ["entity", "show", "nobody"],
    ["entity", "get-limits", "key-1", "--resource", "gpt-4"],
    ["entity", "get-limits", "key-1", "--resource", "_default_"],
    ["entity", "get-limits", "key-2", "--resource", "gpt-4"],
    ["entity", "list", "--with-custom-limits", "gpt-4"],
    ["entity", "list-resources"],
    ["resource", "get-defaults", "gpt-4"],
    ["resource", "get-defaults", "claude-3"],
    ["resource", "list"],
    ["system", "get-defaults"],
    ["namespace", "list"],
    ["namespace", "orphans"],
    ["namespace", "show", "team-a"],
    ["namespace", "show", "nobody"],
    ["audit", "list", "--entity-id", "key-1"],
    ["audit", "list", "--entity-id", "$SYSTEM"],
    ["audit", "list", "--entity-id", "$RESOURCE:gpt-4"],
    ["audit", "list", "--entity-id", "nobody"],
    ["usage", "list", "--entity-id", "key-1"],
    ["usage", "summary", "--entity-id", "key-1"],
]


@pytest.mark.parametrize("turn", [0, 1], ids=["ours first", "theirs first"])
def test_one_table_two_command_lines(shell, turn):
    """The two take turns in writing; after each half both are asked for everything."""
    who = ["ours", "theirs"]
    for number, command in enumerate(WRITES + UNDO):
        output, code = shell.run(who[(number + turn) % 2], *command)
        assert code == 0, (command, output)
        if number + 1 in (len(WRITES), len(WRITES) + len(UNDO)):
            for question in READS:
                (ours, our_code), (theirs, their_code) = (shell.run(one, *question) for one in who)
                assert lines(ours) == lines(theirs), question
                assert our_code == their_code, question


def test_a_script_beside_their_service(shell, world):
    """`zae-limiter acquire` in a script spends the bucket that a service with the original spends."""
    service = world.open("theirs")
    service.set_system_defaults([["rpm", 10, 10, 86_400]])
    service.create_entity("proj-1")
    service.create_entity("key-1", parent="proj-1", cascade=True)
    admitted = 0
    for _ in range(6):
        _, code = shell.run("ours", "acquire", "key-1", "-r", "gpt-4", "-c", "rpm:1")
        admitted += code == 0
        try:
            service.acquire("key-1", "gpt-4", rpm=1).commit()
            admitted += 1
        except Refused:
            pass
    assert admitted == 10
    assert world.balance(service, "key-1", "gpt-4", "rpm") == (0, 10_000)
    assert world.balance(service, "proj-1", "gpt-4", "rpm") == (0, 10_000)
    output, code = shell.run("ours", "acquire", "key-1", "-r", "gpt-4", "-c", "rpm:1")
    assert code == 75, output
    # A command that fails gives back what it took, to both entities.
    world.dynamo.update_item(
        TableName=world.stack,
        Key={"PK": {"S": f"{service.namespace_id}/BUCKET#key-1#gpt-4#0"}, "SK": {"S": "#STATE"}},
        UpdateExpression="SET b_rpm_tk = :two",
        ExpressionAttributeValues={":two": {"N": "2000"}},
    )
    _, code = shell.run("ours", "acquire", "key-1", "-r", "gpt-4", "-c", "rpm:1")
    assert code == 75
    assert world.balance(service, "key-1", "gpt-4", "rpm") == (2_000, 10_000)


def test_limits_set_by_a_script_reach_their_service(shell, world):
    service = world.open("theirs", config_cache_ttl=0, rejection_cache_ttl=0)
    service.set_system_defaults([["rpm", 100, 100, 86_400]])
    service.acquire("key-1", "gpt-4", rpm=1).commit()
    _, code = shell.run("ours", "entity", "set-limits", "key-1", "-r", "gpt-4", "-l", "rpm:5/day")
    assert code == 0
    admitted = 0
    for _ in range(10):
        try:
            service.acquire("key-1", "gpt-4", rpm=1).commit()
            admitted += 1
        except Refused:
            break
    assert admitted == 5


# What both command lines do with the same state and the same words, one command a line. Each has a namespace of its own,
# `NS`; the state of both is the same up to the first command that only ours refuses.
ALIKE = """
entity create e1
entity create e1
entity create e2 --parent e1 --cascade
entity create e3 --parent missing
entity create e4 --display-name Production
entity create 4711
entity show e1
entity show e2
entity show e4
entity show nobody
entity set-limits e1 --resource gpt-4 -l rpm:10
entity set-limits e1 --resource gpt-4 -l rpm:10 -l tpm:1000/hour
entity set-limits e2 --resource gpt-4 -l rpm:10/2hour:20
entity set-limits e2 -l tpd:1000000/day
entity set-limits nobody --resource gpt-4 -l rpm:5
entity get-limits e1 --resource gpt-4
entity get-limits e2 --resource gpt-4
entity get-limits e2
entity get-limits nobody --resource gpt-4
entity get-limits e4 --resource gpt-4
entity list --with-custom-limits gpt-4
entity list --with-custom-limits nothing
entity list-resources
entity delete-limits e1 --resource gpt-4 --yes
entity get-limits e1 --resource gpt-4
entity list --with-custom-limits gpt-4
entity show e1
resource list
resource get-defaults gpt-4
resource set-defaults gpt-4 -l rpm:50
resource set-defaults gpt-4 -l rpm:50 -l tpm:5000:9000
resource set-defaults claude-3 -l rpm:5/sec
resource get-defaults gpt-4
resource get-defaults nothing
resource list
resource delete-defaults claude-3 --yes
resource list
system get-defaults
system set-defaults -l rpm:100
system get-defaults
system set-defaults -l rpm:100 -l tpm:10000/hour:20000 --on-unavailable allow
system get-defaults
system set-defaults -l rpm:100 --on-unavailable block
system get-defaults
system delete-defaults --yes
system get-defaults
audit list --entity-id e1
audit list --entity-id e1 --limit 1
audit list --entity-id e2
audit list --entity-id e3
audit list --entity-id nobody
audit list --entity-id $SYSTEM
audit list --entity-id $RESOURCE:gpt-4
audit list --entity-id $RESOURCE:nothing
audit list --entity-id e1 --start-event-id 01M7ZT4WJXXM3NYR6V7H64WNW5
usage list --entity-id e1
usage list --entity-id nobody
usage list --resource gpt-4
usage list --entity-id e1 --resource gpt-4 --window hourly
usage list --entity-id e1 --start 2026-01-01 --end 2026-02-01
usage list --entity-id e1 --plot
usage summary --entity-id e1
usage summary --resource gpt-4 --window daily
namespace register NS-a NS-b
namespace register NS-a
namespace show NS-a
namespace show NS-nobody
namespace delete NS-b --yes
namespace register NS#c
"""

# By the reason in docs/compatibility.md.
DIFFERENT = {
    "A value that cannot be used ends with 2": """
        entity create bad#id
        entity create ''
        entity set-limits e9 --resource gpt-4 -l rpm
        entity set-limits e9 --resource gpt-4 -l rpm:abc
        entity set-limits e9 --resource gpt-4 -l rpm:1.5
        entity set-limits e9 --resource gpt-4 -l rpm:-5
        entity set-limits e9 --resource gpt-4 -l rpm:0
        entity set-limits e9 --resource gpt-4 -l :5
        entity set-limits e9 --resource gpt-4 -l rpm:10/fortnight
        entity set-limits e9 --resource gpt-4 -l rpm:10/0hour
        resource set-defaults bad#r -l rpm:5
        resource set-defaults _default_ -l rpm:5
        resource get-defaults bad#r
        audit list --entity-id e1 --limit 0
        usage list --entity-id e1 --limit 0
        usage summary
    """,
    "A value is checked before it is looked for or stored": """
        entity show bad#id
        entity set-limits e9 --resource bad#r -l rpm:5
        entity set-limits bad#id --resource gpt-4 -l rpm:5
        entity get-limits bad#id --resource gpt-4
        audit list --entity-id bad#id
        usage list --entity-id e1 --start yesterday
    """,
    "A limit that is given twice is refused": """
        entity set-limits e9 --resource gpt-4 -l rpm:5 -l rpm:6
    """,
    "The parser's own words": """
        nonsense
        entity nonsense
        entity list
        entity set-limits e9 --resource gpt-4
        resource set-defaults gpt-4
        system set-defaults
        system set-defaults -l rpm:100 --on-unavailable nonsense
        audit list --entity-id e1 --limit x
        usage list --entity-id e1 --window weekly
    """,
    "A deletion of nothing says so": """
        entity delete-limits e1 --resource gpt-4 --yes
        entity delete-limits e4 --yes
        resource delete-defaults claude-3 --yes
        resource delete-defaults nothing --yes
        system delete-defaults --yes
        namespace delete NS-nobody --yes
    """,
    "Lists all of a namespace": """
        audit list
        usage list
    """,
    "Commands that only ours has": """
        entity delete e3 --yes
        entity children e1
    """,
}


def commands(text):
    return [line.strip() for line in text.strip().splitlines()]


def test_a_hundred_commands_differ_only_where_the_documentation_says_so(shell):
    sides = {"ours": "side-o", "theirs": "side-t"}
    for name in sides.values():
        shell.run("ours", "namespace", "register", name)

    def answers(command):
        for who, name in sides.items():
            words = [word.replace("NS", name) for word in shlex.split(command)]
            place = ["--namespace", name] if words[0] in ("entity", "resource", "system", "audit", "usage") else []
            output, code = shell.run(who, *words, *place)
            # Events and namespaces have ids and times of their own.
            output = re.sub(r"(:\s+)[\w-]{11}$", r"\1@", output, flags=re.M)
            output = re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ|\b[0-7][0-9A-Z]{25}\b", "@", output.replace(name, "NS"))
            yield lines(re.sub(r"^\W*Timestamp.*$", "", output, flags=re.M)), code

    alike = commands(ALIKE)
    for command in alike:
        ours, theirs = answers(command)
        assert ours == theirs, command
    documented = DOCUMENTATION.read_text(encoding="utf-8")
    different = [(reason, command) for reason, text in DIFFERENT.items() for command in commands(text)]
    for reason, command in different:
        ours, theirs = answers(command)
        assert ours != theirs, f"{command} does not differ any more: {ours}"
        assert f"| {reason} |" in documented, reason
    assert len(alike) + len(different) >= 100
