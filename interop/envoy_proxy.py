"""A real Envoy in front of servers: the published binary, with a bootstrap of the suite's own."""

import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import threading
import urllib.request

from local import eventually
from serve import PATIENCE

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def program():
    [directory] = importlib.util.find_spec("envoy").submodule_search_locations
    return os.path.join(directory, "_bin", "envoy")


def listener(name, address, filters, routes):
    manager = {
        "@type": MANAGER,
        "stat_prefix": name,
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
    }
    return {"name": name, "address": address, "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}


def cluster(name, addresses, **more):
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment, **more}


def socket(address):
    host, port = address.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def header(name, key):
    return {"request_headers": {"header_name": name, "descriptor_key": key}}


def route(prefix, *limits):
    return {"match": {"prefix": prefix}, "route": {"cluster": "backend", "rate_limits": list(limits)}}


ROUTES = [
    route("/keys", {"actions": [header("x-key", "api_key"), header("x-model", "model")]}),
    route(
        "/two",
        {"actions": [header("x-key", "api_key"), header("x-model", "model")]},
        {"actions": [header("x-other", "api_key"), header("x-model", "model")]},
    ),
    {
        **route("/metered"),
        # Hits are only read here, and not of the route.
        "typed_per_filter_config": {
            "ratelimit": {
                "@type": f"{HTTP}.ratelimit.v3.RateLimitPerRoute",
                "rate_limits": [
                    {
                        "actions": [header("x-key", "metered"), header("x-model", "model")],
                        "hits_addend": {"format": "%REQ(x-hits)%"},
                    }
                ],
            }
        },
    },
    {
        **route("/charged"),
        "typed_per_filter_config": {
            "ratelimit": {
                "@type": f"{HTTP}.ratelimit.v3.RateLimitPerRoute",
                # Before the request whether there is debt, and after the response for what it says.
                "rate_limits": [
                    {"actions": [header("x-key", "charged")], "hits_addend": {"number": 0}},
                    {
                        "actions": [
                            header("x-key", "charged"),
                            {"generic_key": {"descriptor_key": "of", "descriptor_value": "response"}},
                        ],
                        "hits_addend": {"format": "%RESP(x-tokens)%"},
                        "apply_on_stream_done": True,
                    },
                ],
            }
        },
    },
    route(
        "/bounded",
        {
            "actions": [header("x-key", "bounded")],
            "limit": {"dynamic_metadata": {"metadata_key": {"key": "limits", "path": [{"key": "own"}]}}},
        },
    ),
    route("/"),
]


def ratelimit(deny):
    return [
        {
            "name": "metadata",
            "typed_config": {
                "@type": f"{HTTP}.set_metadata.v3.Config",
                "metadata": [{"metadata_namespace": "limits", "value": {"own": {"requests_per_unit": 2, "unit": "HOUR"}}}],
            },
        },
        {
            "name": "ratelimit",
            "typed_config": {
                "@type": f"{HTTP}.ratelimit.v3.RateLimit",
                "domain": "gateway",
                # Of a machine that is busy: no test is about it.
                "timeout": "20s",
                "failure_mode_deny": deny,
                "rate_limit_service": {
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
                },
            },
        },
    ]


def bootstrap(backend, servers):
    """Two ports, which differ in what becomes of requests that the limiter does not answer."""
    pipe = {"pipe": {"path": backend}}
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "the backend"}}}
    # It says as its usage what the request asks it to say.
    answer["response_headers_to_add"] = [{"header": {"key": "x-tokens", "value": "%REQ(x-tokens)%"}}]
    free = socket("127.0.0.1:0")
    options = {
        "typed_extension_protocol_options": {
            OPTIONS: {"@type": f"type.googleapis.com/{OPTIONS}", "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "health_checks": [
            {
                "timeout": "5s",
                "interval": "0.2s",
                "no_traffic_interval": "0.2s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "envoy.service.ratelimit.v3.RateLimitService"},
            }
        ],
        # If no server is healthy, calls fail at once.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
    }
    return {
        "admin": {"address": free},
        "static_resources": {
            "listeners": [
                listener("closed", free, ratelimit(True), ROUTES),
                listener("open", free, ratelimit(False), ROUTES),
                listener("backend", pipe, [], [answer]),
            ],
            "clusters": [cluster("backend", [pipe]), cluster("limits", [socket(one) for one in servers], **options)],
        },
    }


class Envoy:
    """A process of Envoy. Its paths are short enough for a socket."""

    def __init__(self, *servers):
        self.directory = tempfile.mkdtemp(prefix="envoy")
        path = lambda name: os.path.join(self.directory, name)  # noqa: E731
        with open(path("envoy.json"), "w") as config:
            json.dump(bootstrap(path("backend"), [server.grpc for server in servers]), config)
        command = [program(), "-c", path("envoy.json"), "--admin-address-path", path("admin"), "--concurrency", "1"]
        self.log = path("log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, "--disable-hot-restart", "--log-level", "warning"], stderr=log, stdin=subprocess.DEVNULL
            )
        self.connections = threading.local()
        try:
            self.admin = eventually(lambda: self.read(path("admin")), PATIENCE)
            eventually(lambda: self.ask_admin("/ready") == "LIVE\n", PATIENCE)
            listeners = json.loads(self.ask_admin("/listeners?format=json"))["listener_statuses"]
            self.ports = {
                one["name"]: one["local_address"]["socket_address"]["port_value"]
                for one in listeners
                if "socket_address" in one["local_address"]
            }
            eventually(lambda: self.healthy() == len(servers), PATIENCE)
        except BaseException:
            self.close()
            raise

    def read(self, path):
        assert self.process.poll() is None, open(self.log).read()
        return open(path).read() if os.path.exists(path) else None

    def ask_admin(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=PATIENCE) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def stat(self, name):
        """A counter or a gauge, which is 0 before it is used."""
        for line in self.ask_admin(f"/stats?filter=^{name}$").splitlines():
            return int(line.rsplit(":", 1)[1])
        return 0

    def healthy(self):
        return self.stat("cluster.limits.membership_healthy")

    def get(self, path, port="closed", **fields):
        """The status and the header fields of an answer, on a connection of this thread."""
        key = f"to_{port}"
        connection = getattr(self.connections, key, None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=PATIENCE)
            setattr(self.connections, key, connection)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def key(self, key, port="closed", model="gpt-4"):
        return self.get("/keys", port, x_key=key, x_model=model)[0]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        shutil.rmtree(self.directory)
