"""The files in `deploy/`: Envoy and the server run with them, and validators of others read them."""

import datetime
import fnmatch
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from local import PROGRAM, eventually
from recording import Recording

HERE = Path(__file__).resolve().parent
DEPLOY = HERE.parent / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
TOOLS = Path(sys.executable).parent
TOKEN = "a-token-of-the-test"
#: How often the server looks at its files, and more.
RELOAD = 20


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def read(path):
    return list(yaml.safe_load_all((KUBERNETES / path).read_text()))


def resources():
    kustomization = read("kustomization.yaml")[0]
    return [(path, found) for path in kustomization["resources"] for found in read(path)]


def one(kind, name="zae-limiter"):
    [found] = [found for _, found in resources() if found["kind"] == kind and found["metadata"]["name"] == name]
    return found


def container():
    [container] = one("Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def options():
    first, *others = container()["args"]
    assert first == "serve"
    return dict(option.split("=", 1) for option in others)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# Kubernetes.


def test_schemas_of_kubernetes():
    paths = sorted({path for path, _ in resources()})
    run(TOOLS / "kubernetes-validate", "--strict", "-k", "1.33", *[KUBERNETES / path for path in paths])
    named = {"kustomization.yaml", "rules.yaml", *paths}
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == named, "each file is part of the kustomization"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl builds it")
@pytest.mark.parametrize("components", [[], ["monitoring"], ["monitoring", "cert-manager"], ["monitoring", "mesh"], ["mesh"]])
def test_kustomize_builds(tmp_path, components):
    base = os.path.relpath(KUBERNETES, tmp_path)
    overlay = {"resources": [base], "components": [f"{base}/components/{name}" for name in components]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**overlay, "namespace": "limits"}))
    built = list(yaml.safe_load_all(run("kubectl", "kustomize", tmp_path)))
    [deployment] = [found for found in built if found["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    has_tls = "mesh" not in components
    assert any(option.startswith("--tls-key=") for option in spec["containers"][0]["args"]) == has_tls
    assert ("tls" in [volume["name"] for volume in spec["volumes"]]) == has_tls
    assert spec["containers"][0]["readinessProbe"]["httpGet"]["scheme"] == ("HTTPS" if has_tls else "HTTP")
    [grpc] = [found for found in built if found["kind"] == "Service" and found["metadata"]["name"] == "zae-limiter-grpc"]
    assert grpc["spec"].get("clusterIP") == ("None" if has_tls else None)
    monitors = [found for found in built if found["kind"] == "PodMonitor"]
    assert [("tlsConfig" in found["spec"]["podMetricsEndpoints"][0]) for found in monitors] == [has_tls] * ("monitoring" in components)


def test_options_of_the_deployment_exist():
    known = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", run(PROGRAM, "serve", "--help"), re.MULTILINE)
    assert set(options()) <= set(known)


def test_ports_and_selectors_agree():
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    for name in ["grpc", "http"]:
        assert options()[f"--{name}-listen"] == f"0.0.0.0:{ports[name]}"
    exposed = re.search(r"^EXPOSE (.*)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)[1]
    assert sorted(exposed.split()) == sorted(map(str, ports.values()))
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [one("Deployment")["spec"]["selector"], one("PodDisruptionBudget")["spec"]["selector"], one("NetworkPolicy")["spec"]["podSelector"]]
    assert [found["matchLabels"] for found in selectors] == [labels] * 3
    for name in ["zae-limiter", "zae-limiter-grpc"]:
        service = one("Service", name)["spec"]
        assert service["selector"] == labels
        assert [port["targetPort"] in ports for port in service["ports"]] == [True]
    assert one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == one("Deployment")["metadata"]["name"]
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        assert container()[probe]["httpGet"]["port"] in ports


def test_the_server_ends_before_it_is_killed():
    drain = sum(int(options()[name].removesuffix("s")) for name in ["--drain-delay", "--drain-timeout"])
    assert one("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain


def test_rules_are_valid():
    assert "is valid" in run(PROGRAM, "serve", "--check", KUBERNETES / "rules.yaml")


def test_the_containerfile():
    run(TOOLS / "hadolint", "--failure-threshold", "info", DEPLOY / "Containerfile")
    user = re.search(r"^USER (\d+):(\d+)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    security = one("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert [int(number) for number in user.groups()] == [security["runAsUser"], security["runAsGroup"]]


# The server.


def common_name(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Server:
    """A server with the arguments of the Deployment, and volumes as the kubelet makes them."""

    def __init__(self, folder, **environment):
        self.folder, self.versions = folder, 0
        tls = self.certificates()
        secrets = {"tokens": f"{hashlib.sha256(TOKEN.encode()).hexdigest()}  -\n", "lease-keys": "ab" * 32 + "\n"}
        self.mount("rules", {"rules.yaml": (KUBERNETES / "rules.yaml").read_text()})
        self.mount("secrets", secrets)
        self.mount("tls", tls)
        changed = {"--grpc-listen": "0.0.0.0:0", "--http-listen": "0.0.0.0:0", "--drain-delay": "0s"}
        words = []
        for name, value in {**options(), **changed}.items():
            words.append(f"{name}={value.replace('/etc/zae-limiter', str(folder))}")
        names = {found["name"]: found["value"] for found in container()["env"]}
        # No HOME, and none of this machine's variables.
        self.environment = {**names, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", **environment}
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen([PROGRAM, "serve", *words], env=self.environment, stderr=self.log)
        eventually(lambda: self.process.poll() is not None or self.lines("ready"), 60)
        [ready] = self.lines("ready")
        self.grpc, self.http = (int(ready[name].rpartition(":")[2]) for name in ["grpc", "http"])
        self.context = self.trust()

    def certificates(self):
        """Of a new authority, for the names of the Services."""
        authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer, now = common_name("authority"), datetime.datetime.now(datetime.UTC)

        def signed(subject, public, extension, critical):
            builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
            builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
            made = builder.add_extension(extension, critical).sign(authority, hashes.SHA256())
            return made.public_bytes(serialization.Encoding.PEM).decode()

        is_authority = x509.BasicConstraints(ca=True, path_length=0)
        (self.folder / "ca.crt").write_text(signed(issuer, authority.public_key(), is_authority, True))
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in ["zae-limiter", "zae-limiter-grpc", "localhost"]])
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return {
            "tls.crt": signed(common_name("zae-limiter"), key.public_key(), names, False),
            "tls.key": key.private_bytes(serialization.Encoding.PEM, *plain).decode(),
        }

    def trust(self):
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        # Python 3.13 asks for extensions that these certificates do not have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def mount(self, name, files):
        """As the kubelet writes a volume: a folder of the version, and a link `..data` to it that is replaced at once."""
        self.versions += 1
        volume = self.folder / name
        version = volume / f"..version-{self.versions}"
        version.mkdir(parents=True)
        for file, text in files.items():
            (version / file).write_text(text)
            link = volume / file
            if not link.is_symlink():
                link.symlink_to(Path("..data") / file)
        (volume / "..data_tmp").symlink_to(version.name)
        old = (volume / "..data").resolve()
        (volume / "..data_tmp").replace(volume / "..data")
        if old.name.startswith("..version"):
            shutil.rmtree(old)

    def lines(self, message):
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def ask(self, path, body=None, token=TOKEN):
        request = urllib.request.Request(f"https://localhost:{self.http}{path}", body and json.dumps(body).encode())
        if token:
            request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.log.close()
        return code


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A table in a folder, with defaults."""
    at = f"embedded:{tmp_path_factory.mktemp('table')}/limits"
    names = {found["name"]: found["value"] for found in container()["env"]}
    stack = ["--name", names["ZAEL_STACK"], "--endpoint-url", at]
    run(PROGRAM, "deploy", *stack)
    run(PROGRAM, "system", "set-defaults", "-l", "rpm:2", *stack)
    return at


@pytest.fixture
def server(tmp_path, embedded):
    server = Server(tmp_path, ZAEL_ENDPOINT=embedded)
    yield server
    assert server.end() == 0, (tmp_path / "log").read_text()


def test_probes_need_no_token_and_all_else_does(server):
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        assert server.ask(container()[probe]["httpGet"]["path"], token=None)[0] == 200
    assert [server.ask("/metrics", token=token)[0] for token in [None, "wrong", TOKEN]] == [401, 401, 200]


def test_files_are_followed_as_the_kubelet_replaces_them(server):
    rules = (KUBERNETES / "rules.yaml").read_text()
    server.mount("rules", {"rules.yaml": rules.replace("name: requests", "name: renamed")})
    eventually(lambda: "renamed" in server.ask("/v1/rules")[1], RELOAD)
    server.mount("rules", {"rules.yaml": "version: 1\nnonsense: true\n"})
    eventually(lambda: server.lines("read again and not put in force; the old content holds"), RELOAD)
    assert "renamed" in server.ask("/v1/rules")[1]
    server.mount("secrets", {"tokens": hashlib.sha256(b"another").hexdigest(), "lease-keys": "cd" * 32})
    eventually(lambda: server.ask("/v1/rules", token="another")[0] == 200, RELOAD)
    assert server.ask("/v1/rules")[0] == 401
    server.mount("tls", server.certificates())
    server.context = server.trust()

    def is_renewed():
        try:
            return server.ask("/healthz", token=None)[0] == 200
        except urllib.error.URLError:
            return False

    eventually(is_renewed, RELOAD)
    assert {line["file"] for line in server.lines("read again, in force")} == {"rules", "tokens", "lease_keys", "certificates"}


# Permissions.


def allowed(statements, action, key):
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if f"dynamodb:{action}" in actions:
            keys = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", "*")
            if any(fnmatch.fnmatchcase(key, one) for one in ([keys] if isinstance(keys, str) else keys)):
                return True
    return False


def test_the_policy_allows_what_the_server_does_and_little_else(world, tmp_path):
    statements = json.loads((DEPLOY / "aws/policy.json").read_text())["Statement"]
    names = ["--name", world.stack, "--endpoint-url", world.endpoint]
    run(PROGRAM, "system", "set-defaults", "-l", "rpm:2", "-l", "tpm:1000", *names)
    run(PROGRAM, "entity", "create", "project-1", *names)
    run(PROGRAM, "entity", "create", "key-1", "--parent", "project-1", "--cascade", *names)
    recording = Recording(world.endpoint)
    server = Server(tmp_path, ZAEL_ENDPOINT=recording.endpoint, ZAEL_STACK=world.stack)

    def acquire(entity, **more):
        body = {"entity_id": entity, "resource": "gpt-4", "consume": {"rpm": 1, "tpm": 100}, **more}
        status, text = server.ask("/v1/acquire", body)
        return status, json.loads(text).get("lease")

    assert server.ask("/readyz")[0] == 200
    assert [acquire("key-1", lease=False)[0] for _ in range(3)] == [200, 200, 429]
    assert acquire("key-2", also=[{"resource": "o3", "consume": {"rpm": 1}}])[0] == 200
    assert server.ask("/v1/check", {"entity_id": "key-3", "resource": "gpt-4", "consume": {"rpm": 1}})[0] == 200
    for end, body in [("commit", {"actual": {"tpm": 50}}), ("rollback", {})]:
        lease = acquire("key-4")[1]
        assert server.ask(f"/v1/leases/{lease}/extend", {"ttl_ms": 90_000})[0] == 200
        assert server.ask(f"/v1/leases/{lease}/{end}", body)[0] == 200
    assert acquire("key-5", ttl_ms=1000, on_expiry="give_back")[0] == 200
    lease = acquire("key-6", ttl_ms=1000)[1]
    assert server.ask(f"/v1/leases/{lease}/extend", {"ttl_ms": 2000})[0] == 200
    for outcome in ["given_back", "kept"]:
        swept = f'zae_limiter_server_leases_swept_total{{outcome="{outcome}"}} 1'
        eventually(lambda swept=swept: swept in server.ask("/metrics")[1], 60)
    assert server.end() == 0
    recording.close()
    needed = {(action, key.split("/")[0] == "_", key.split("/")[1].split("#")[0]) for action, key in recording.seen}
    assert [pair for pair in sorted(recording.seen) if not allowed(statements, *pair)] == []
    for action in ["GetItem", "BatchGetItem", "ConditionCheckItem", "Query", "PutItem", "UpdateItem", "DeleteItem"]:
        assert action in {action for action, *_ in needed}, f"the policy allows {action}, which nothing needs"
    # Neither limits nor entities can be changed, and nothing can be listed.
    for action in ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "Query"]:
        for key in ["ns/ENTITY#key-1", "ns/SYSTEM#", "ns/RESOURCE#gpt-4", "_/SYSTEM#"]:
            assert not allowed(statements, action, key)
    assert not any(allowed(statements, action, "ns/BUCKET#a#b#0") for action in ["Scan", "DeleteItem", "BatchWriteItem", "DescribeTable"])
    # Ten minutes after their end, records are deleted in batches.
    assert allowed(statements, "BatchWriteItem", "ns/LEASES#00")


# Envoy.


class Envoy:
    """A real Envoy, with the bootstrap of `deploy/` on other ports."""

    def __init__(self, folder, grpc, change=lambda bootstrap: None, **environment):
        self.front, self.admin, service = free_port(), free_port(), free_port()
        bootstrap = yaml.safe_load((DEPLOY / "envoy/envoy.yaml").read_text())
        change(bootstrap)
        text = json.dumps(bootstrap)
        for old, new in {9901: self.admin, 10000: self.front, 10001: service, 8081: grpc}.items():
            assert f'"port_value": {old}}}' in text
            text = text.replace(f'"port_value": {old}}}', f'"port_value": {new}}}')
        path = folder / "envoy.json"
        path.write_text(text)
        run(TOOLS / "envoy", "--mode", "validate", "--config-path", path)
        self.log = (folder / "envoy.log").open("w")
        command = [TOOLS / "envoy", "--config-path", path, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=self.log, stdout=self.log)
        eventually(self.is_live, 60)

    def is_live(self):
        assert self.process.poll() is None, Path(self.log.name).read_text()
        try:
            return self.get(self.front, {})[0] == 200
        except OSError:
            return False

    def get(self, port=None, fields=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.front, timeout=30)
        connection.request("GET", "/", headers={"x-api-key": "key-1", "x-model": "gpt-4"} if fields is None else fields)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()


def rate_limit(bootstrap):
    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["http_filters"][0]["typed_config"]


def test_the_bootstrap_of_envoy_is_valid():
    run(TOOLS / "envoy", "--mode", "validate", "--config-path", DEPLOY / "envoy/envoy.yaml")


def test_the_page_has_the_filter_of_the_bootstrap():
    blocks = re.findall(r"```yaml\n(.*?)```", (HERE.parent / "docs/serve.md").read_text(), re.DOTALL)
    bootstrap = yaml.safe_load((DEPLOY / "envoy/envoy.yaml").read_text())
    shown = [yaml.safe_load(block) for block in blocks if "envoy.filters.http.ratelimit" in block or "rate_limits:" in block]
    assert shown[0][0]["typed_config"] == rate_limit(bootstrap)
    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert shown[1]["rate_limits"] == manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["rate_limits"]


def in_cluster(folder, deny):
    """Changes the bootstrap as `deploy/README.md` says, for TLS and the token."""
    blocks = re.findall(r"```yaml\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    [shown] = [yaml.safe_load(block) for block in blocks if "transport_socket" in block]

    def change(bootstrap):
        rate_limit(bootstrap)["rate_limit_service"]["grpc_service"] = shown["grpc_service"]
        # The tests' machine can be slow.
        rate_limit(bootstrap).update(failure_mode_deny=deny, timeout="5s")
        [limits] = [found for found in bootstrap["static_resources"]["clusters"] if found["name"] == "limits"]
        limits["transport_socket"] = json.loads(json.dumps(shown["transport_socket"]).replace("/etc/limits", str(folder)))

    return change


@pytest.mark.parametrize("deny", [False, True])
def test_envoy_limits_requests_and_follows_its_mode_of_failure(server, tmp_path, deny):
    key = {"x-api-key": f"key-{deny}-{time.time_ns()}", "x-model": "gpt-4"}
    envoy = Envoy(tmp_path, server.grpc, in_cluster(tmp_path, deny), LIMITS_TOKEN=TOKEN)
    try:
        answers = [envoy.get(fields=key) for _ in range(3)]
        assert [status for status, _ in answers] == [200, 200, 429]
        assert {fields["ratelimit-policy"] for _, fields in answers} == {'"rpm";q=2;w=60'}
        assert int(answers[2][1]["retry-after"]) <= 30
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert envoy.get(fields=key)[0] == (500 if deny else 200)
        finally:
            server.process.send_signal(signal.SIGCONT)
    finally:
        envoy.close()


def test_a_wrong_token_admits_nothing(server, tmp_path):
    envoy = Envoy(tmp_path, server.grpc, in_cluster(tmp_path, deny=True), LIMITS_TOKEN="wrong")
    try:
        assert envoy.get()[0] == 500
        refused = 'zae_limiter_server_requests_total{port="grpc",code="16"} 1'
        assert refused in server.ask("/metrics")[1]
    finally:
        envoy.close()
