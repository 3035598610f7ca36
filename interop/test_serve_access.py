"""Who may call `zae-limiter serve`, what health checks and reflection say: Python's gRPC with its own services."""

import datetime
import hashlib
import ipaddress
import signal

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.service.ratelimit.v3 import rls_pb2_grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from local import eventually
from serve import PATIENCE, server, table  # noqa: F401
from test_serve_grpc import OK, Client, of_key

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def code(call):
    """The code of the failure of a call, or None."""
    try:
        call()
    except grpc.RpcError as err:
        return err.code()
    return None


def ask(channel, token=None, key="key-1"):
    metadata = [("authorization", token)] if token else None
    return rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(of_key(key, "api"), timeout=PATIENCE, metadata=metadata)


def check(channel, service=""):
    checked = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(checked, timeout=PATIENCE).status


def hashed(token):
    return f"{hashlib.sha256(token.encode()).hexdigest()} of a proxy\n"


def test_tokens(table, tmp_path):  # noqa: F811
    tokens = tmp_path / "tokens"
    tokens.write_text(hashed("first"))
    server = table.serve("--token-file", tokens)  # noqa: F811
    with grpc.insecure_channel(server.grpc) as channel:
        for wrong in [None, "Bearer", "Bearer second", "Basic first", "first"]:
            assert code(lambda: ask(channel, wrong)) == UNAUTHENTICATED, wrong
        assert ask(channel, "Bearer first").overall_code == OK
        # Health checks need none, and reflection does.
        assert check(channel) == SERVING
        assert code(lambda: ProtoReflectionDescriptorDatabase(channel).get_services()) == UNAUTHENTICATED
        # The file is read again.
        new = tmp_path / "new"
        new.write_text(hashed("second"))
        new.replace(tokens)
        server.signal(signal.SIGHUP)
        eventually(lambda: code(lambda: ask(channel, "Bearer second")) is None, PATIENCE)
        assert code(lambda: ask(channel, "Bearer first")) == UNAUTHENTICATED
    assert server.end() == 0


class Authority:
    """Issues certificates."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        constraints = [(x509.BasicConstraints(ca=True, path_length=None), True)]
        self.certificate = self.sign(self.name, self.key, constraints)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, subject, key, extensions):
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder(
            issuer_name=self.name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(hours=1),
            not_valid_after=now + datetime.timedelta(days=1),
        )
        for extension, is_critical in extensions:
            made = made.add_extension(extension, is_critical)
        return made.sign(self.key, hashes.SHA256())

    def issue(self, usage):
        """A certificate for this machine and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        extensions = [(x509.SubjectAlternativeName(names), False), (x509.ExtendedKeyUsage([usage]), False)]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
        certificate = self.sign(subject, key, extensions).public_bytes(serialization.Encoding.PEM)
        form = serialization.PrivateFormat.PKCS8
        return certificate, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def of_server():
    return Authority("of servers")


@pytest.fixture
def tls(of_server, tmp_path):
    """Options of a server with a certificate."""
    certificate, key = of_server.issue(x509.ExtendedKeyUsageOID.SERVER_AUTH)
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    return ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]


def secure(server, authority, identity=(None, None)):  # noqa: F811
    certificate, key = identity
    credentials = grpc.ssl_channel_credentials(authority.pem, private_key=key, certificate_chain=certificate)
    return grpc.secure_channel(server.grpc, credentials)


def test_tls(table, of_server, tls):  # noqa: F811
    server = table.serve(*tls)  # noqa: F811
    with secure(server, of_server) as channel:
        assert ask(channel, key="key-tls").overall_code == OK
    # Neither a client that trusts another authority, nor one without TLS.
    with secure(server, Authority("of others")) as channel:
        assert code(lambda: ask(channel)) == grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(server.grpc) as channel:
        assert code(lambda: ask(channel)) == grpc.StatusCode.UNAVAILABLE
    assert server.end() == 0


def test_mutual_tls_and_a_token(table, of_server, tls, tmp_path):  # noqa: F811
    of_clients, others = Authority("of clients"), Authority("of others")
    (tmp_path / "ca.pem").write_bytes(of_clients.pem)
    (tmp_path / "tokens").write_text(hashed("first"))
    server = table.serve(*tls, "--client-ca", tmp_path / "ca.pem", "--token-file", tmp_path / "tokens")  # noqa: F811
    usage = x509.ExtendedKeyUsageOID.CLIENT_AUTH
    with secure(server, of_server, of_clients.issue(usage)) as channel:
        assert ask(channel, "Bearer first", "key-mutual").overall_code == OK
        assert code(lambda: ask(channel)) == UNAUTHENTICATED
    # Without a certificate, only health checks are answered.
    with secure(server, of_server) as channel:
        assert code(lambda: ask(channel, "Bearer first")) == UNAUTHENTICATED
        assert check(channel) == SERVING
    for wrong in [others.issue(usage), of_clients.issue(x509.ExtendedKeyUsageOID.SERVER_AUTH)]:
        with secure(server, of_server, wrong) as channel:
            assert code(lambda: ask(channel, "Bearer first")) == grpc.StatusCode.UNAVAILABLE
    assert server.end() == 0


class AsV1(grpc.StreamStreamClientInterceptor):
    """The published client of reflection is of v1alpha; v1 has the same messages."""

    def intercept_stream_stream(self, continuation, details, requests):
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        path = path.replace("/grpc.reflection.v1alpha.", "/grpc.reflection.v1.")
        return continuation(details._replace(method=path), requests)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_client_that_knows_nothing_finds_the_service_and_calls_it(server, version):  # noqa: F811
    with grpc.insecure_channel(server.grpc) as channel:
        asked = grpc.intercept_channel(channel, AsV1()) if version == "v1" else channel
        database = ProtoReflectionDescriptorDatabase(asked)
        services = database.get_services()
        assert {SERVICE, "grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= set(services)
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName(SERVICE).FindMethodByName("ShouldRateLimit")
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        asked = request(domain="gateway", hits_addend=2)
        descriptor = asked.descriptors.add()
        descriptor.entries.add(key="api_key", value=f"key-{version}")
        descriptor.entries.add(key="model", value="reflected")
        answer = call(asked, timeout=PATIENCE)
        assert (answer.overall_code, answer.statuses[0].limit_remaining) == (OK, 3)
        # A field that is newer than the published messages of other tests.
        descriptor.is_negative_hits = True
        assert code(lambda: call(asked, timeout=PATIENCE)) == grpc.StatusCode.INVALID_ARGUMENT


def test_health_checks_through_the_end_of_a_server(table):  # noqa: F811
    server = table.serve("--drain-delay", "2s")  # noqa: F811
    client = Client(server)
    for service in ["", SERVICE]:
        assert check(client.channel, service) == SERVING
    assert code(lambda: check(client.channel, "of.another.Service")) == grpc.StatusCode.NOT_FOUND
    stub = health_pb2_grpc.HealthStub(client.channel)
    watched = [stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE) for name in ["", SERVICE]]
    assert [next(stream).status for stream in watched] == [SERVING] * 2
    server.signal(signal.SIGTERM)
    assert [next(stream).status for stream in watched] == [NOT_SERVING] * 2
    # Others still send requests until they have seen it.
    assert client.ask(of_key("key-drained")).overall_code == OK
    with grpc.insecure_channel(server.grpc) as late:
        assert check(late) == NOT_SERVING
    # Streams do not hold the end up.
    for stream in watched:
        assert code(lambda: next(stream)) == grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(PATIENCE) == 0
    assert "were cut" not in server.log.read_text()
    client.channel.close()


def test_a_table_that_fails_is_not_ready(table, server):  # noqa: F811
    assert server.get("/readyz")[0] == 200
    with table.frozen():
        assert server.get("/readyz")[0] == 503
        assert server.get("/healthz")[0] == 200
    eventually(lambda: server.get("/readyz")[0] == 200, PATIENCE)
