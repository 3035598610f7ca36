"""The stack's template: before an independent linter, and beside the template of the Python original."""

import copy
import importlib.resources
import os
import subprocess
import sys

import pytest
from cfnlint.decode import decode

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATE = os.path.join(HERE, "..", "crates", "infra", "template.yaml")
LOAD_TEMPLATE = os.path.join(HERE, "..", "crates", "infra", "load-template.yaml")


def read(path):
    """A template in long form."""
    template, problems = decode(str(path))
    assert not problems, problems
    return template


@pytest.fixture(scope="module")
def ours():
    return read(TEMPLATE)


@pytest.fixture(scope="module")
def theirs():
    with importlib.resources.as_file(importlib.resources.files("zae_limiter.infra")) as folder:
        return read(folder / "cfn_template.yaml")


def lint(path):
    """The linter's findings, warnings included, and whether there were any."""
    linter = os.path.join(os.path.dirname(sys.executable), "cfn-lint")
    command = [linter, "--regions", "us-east-1", "eu-central-1", "--format", "parseable", "--template", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return result.stdout + result.stderr, result.returncode


@pytest.mark.parametrize("path", [TEMPLATE, LOAD_TEMPLATE])
def test_the_linter_finds_nothing(path):
    findings, code = lint(path)
    assert (findings.strip(), code) == ("", 0)


def test_the_linter_looks(tmp_path):
    # So that an empty answer means something.
    with open(TEMPLATE) as file:
        text = file.read()
    broken = tmp_path / "template.yaml"
    broken.write_text(text.replace("BatchSize: 100", "BatchSize: many"))
    findings, code = lint(str(broken))
    assert "'many' is not of type 'integer'" in findings and code != 0


def without_lean_index(value):
    """A part of our template as it is for a table without a lean index, which is the default."""
    if isinstance(value, list):
        return [without_lean_index(item) for item in value]
    if not isinstance(value, dict):
        return value
    condition, _, otherwise = value.get("Fn::If", (None, None, None))
    if condition == "UseLeanIndex":
        return otherwise
    return {name: without_lean_index(item) for name, item in value.items()}


def test_a_stack_of_the_original_can_be_upgraded(ours, theirs):
    """No resource changes its id or type or exists under other parameters than the functions' code, and nothing whose
    change would replace a named resource differs."""
    assert {name: resource["Type"] for name, resource in ours["Resources"].items()} == {
        **{name: resource["Type"] for name, resource in theirs["Resources"].items()},
        "LimitAlertAlarm": "AWS::CloudWatch::Alarm",
    }
    for name, resource in theirs["Resources"].items():
        mine = ours["Resources"][name]
        assert mine.get("Condition") == resource.get("Condition"), name
        for identity in (
            "TableName",
            "KeySchema",
            "AttributeDefinitions",
            "GlobalSecondaryIndexes",
            "LocalSecondaryIndexes",
            "QueueName",
            "LogGroupName",
            "FunctionName",
            "RoleName",
            "ManagedPolicyName",
            "AlarmName",
            "EventSourceArn",
            "StartingPosition",
        ):
            mine_is = without_lean_index(mine["Properties"].get(identity))
            theirs_is = resource["Properties"].get(identity)
            if isinstance(theirs_is, list):
                mine_is, theirs_is = sorted(mine_is, key=str), sorted(theirs_is, key=str)
            assert mine_is == theirs_is, (name, identity)
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            assert mine["Properties"]["Description"] == resource["Properties"]["Description"], name


def test_what_other_stacks_import_stays(ours, theirs):
    def exported(template):
        return {
            name: (output.get("Condition"), output["Value"], output["Export"])
            for name, output in template["Outputs"].items()
        }

    exports = exported(ours)
    # The alarm that a stack of the original does not have.
    del exports["LimitAlertAlarmName"]
    assert exports == exported(theirs)


def test_parameters_of_the_original_are_understood(ours, theirs):
    """An upgrade hands the current values on, so none may be unknown or out of range."""
    for name, parameter in theirs["Parameters"].items():
        for key in ("Type", "AllowedValues", "MinValue", "MaxValue", "AllowedPattern"):
            assert ours["Parameters"][name].get(key) == parameter.get(key), (name, key)
        if name != "SchemaVersion":  # Theirs is a version that no table has had.
            assert ours["Parameters"][name]["Default"] == parameter["Default"], name
    added = set(ours["Parameters"]) - set(theirs["Parameters"])
    assert added == {"FunctionCodeBucket", "FunctionCodeKey", "FunctionArchitecture", "LeanIndex", "AlertThresholds"}
    assert ours["Parameters"]["LeanIndex"]["Default"] == "false"


def test_conditions_differ_by_the_code_alone(ours, theirs):
    """With a package given, the same exists as in a stack of the original."""
    conditions = dict(ours["Conditions"])
    code = {"Condition": "HasFunctionCode"}
    del conditions["HasFunctionCode"]
    del conditions["UseLeanIndex"]
    del conditions["DeployAlertAlarm"]
    for name in ("DeployAggregatorLambda", "DeployProvisionerLambda"):
        operands = conditions[name]["Fn::And"]
        assert code in operands, name
        conditions[name] = {"Fn::And": [operand for operand in operands if operand != code]}
    assert conditions == theirs["Conditions"]


def test_application_rights_are_those_of_the_original(ours, theirs):
    """A principal of either fleet works with a stack of either, apart from leases that another process ends."""

    def statements(template, policy):
        found = []
        for statement in copy.deepcopy(template["Resources"][policy]["Properties"]["PolicyDocument"]["Statement"]):
            rest = {key: statement[key] for key in statement if key not in ("Sid", "Action")}
            keys = rest.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", [])
            of_leases = [key for key in keys if "/LEASES#" in key]
            if keys and keys == of_leases:
                continue
            for key in of_leases:
                keys.remove(key)
            found.append((sorted(statement["Action"]), rest))
        return found

    for name, resource in theirs["Resources"].items():
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            assert statements(ours, name) == statements(theirs, name), name
