"""`limits cfn-template` beside the original's, and before the YAML 1.1 reader that most tools have."""

import json
import os
import subprocess

import pytest
import yaml
from click.testing import CliRunner
from zae_limiter.cli import cli as their_cli

OUR_PROGRAM = os.environ["ZAE_LIMITER_CLI"]

MANIFEST = """\
namespace: default
system:
  on_unavailable: block
  limits:
    rpm: {capacity: 1000}
resources:
  gpt-4:
    limits:
      rpm: {capacity: 600, refill_amount: 60, refill_period: 30}
entities:
  user-premium:
    resources:
      gpt-4:
        limits: {}
      _default_:
        limits:
          rpm: {capacity: 1000}
"""

# What YAML 1.1 takes for something else than text, or cannot read without quotes.
NAMESPACES = ["on", "1", "~", "é ü", "a: b", "- x", "it's", '"q"', "\u2028", "#x", "a #b", "[x]", "&a", "!t", "|", "%", "`x"]
NAMESPACES += ["null", "=", "<<", "2001-01-01", " lead", "trail ", "\ufeff", "?", "a\\b", "日本", ".inf", "+1", "1__0"]
RESOURCES = ["y", "Y", "n", "on", "Off", "TRUE", "null", "e1", "a.b", "a:b", "inf", "nan", "a-b", "a_b", "Yes", "NO", "a/b"]
ENTITIES = ["1", "007", "0x1F", "1e3", "1:30", "1_000", "2024-01-01", "2024-01-01T00:00:00", "on", "user@x.com", "a:b"]
ENTITIES += ["0b1", "12:30:45", "1.5", "1.", "y", "null", "1-2"]


def ours(manifest, *options):
    arguments = ["limits", "cfn-template", "--name", "off", "--file", "-", *options]
    done = subprocess.run([OUR_PROGRAM, *arguments], input=manifest, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_template_is_theirs_to_the_letter(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text(MANIFEST)
    theirs = CliRunner().invoke(their_cli, ["limits", "cfn-template", "--name", "off", "--file", str(path)])
    assert theirs.exit_code == 0
    # The original keeps the order of the file, where ours sorts.
    assert yaml.safe_load(ours(MANIFEST)) == yaml.safe_load(theirs.output)
    ordered = MANIFEST.replace("      gpt-4:\n        limits: {}\n", "")
    path.write_text(ordered)
    theirs = CliRunner().invoke(their_cli, ["limits", "cfn-template", "--name", "off", "--file", str(path)])
    assert ours(ordered) == theirs.output


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_names_survive_a_reader_of_yaml_1_1(namespace):
    limits = {"limits": {"y": {"capacity": 1}}}
    manifest = {
        "namespace": namespace,
        "resources": {name: limits for name in RESOURCES},
        "entities": {name: {"resources": {"on": limits}} for name in ENTITIES},
    }
    template = yaml.safe_load(ours(json.dumps(manifest, ensure_ascii=True), "--full"))
    properties = template["Resources"]["TenantLimits"]["Properties"]
    level = {"Limits": {"y": {"Capacity": 1}}}
    assert properties == {
        "ServiceToken": {"Fn::ImportValue": "off-ProvisionerArn"},
        "TableName": "off",
        "Namespace": namespace,
        "FullApply": True,
        "Resources": {name: level for name in RESOURCES},
        "Entities": {name: {"Resources": {"on": level}} for name in ENTITIES},
    }
    assert template["AWSTemplateFormatVersion"] == "2010-09-09"
    assert template["Description"] == f"Declarative limits for namespace '{namespace}'"
