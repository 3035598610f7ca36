"""A proxy of DynamoDB that records which operations touch which partitions."""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: What the parts of a transaction are authorised as.
PARTS = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


def touched(operation, body):
    """The actions that a request needs, each with its partition key."""
    if operation == "TransactWriteItems":
        parts = [part for item in body["TransactItems"] for part in item.items()]
        return [(PARTS[name], (part.get("Item") or part["Key"])["PK"]["S"]) for name, part in parts]
    if operation == "BatchGetItem":
        return [(operation, key["PK"]["S"]) for table in body["RequestItems"].values() for key in table["Keys"]]
    if operation == "BatchWriteItem":
        writes = [write for table in body["RequestItems"].values() for write in table]
        keys = [write["PutRequest"]["Item"] if "PutRequest" in write else write["DeleteRequest"]["Key"] for write in writes]
        return [(operation, key["PK"]["S"]) for key in keys]
    if operation == "Query":
        assert "IndexName" not in body, body
        name = body["KeyConditionExpression"].split("=")[0].strip()
        assert body.get("ExpressionAttributeNames", {}).get(name, name) == "PK", body
        value = body["KeyConditionExpression"].split("=")[1].split()[0]
        return [(operation, body["ExpressionAttributeValues"][value]["S"])]
    if operation in ["GetItem", "PutItem", "UpdateItem", "DeleteItem"]:
        return [(operation, (body.get("Item") or body["Key"])["PK"]["S"])]
    return [(operation, "")]


class Recording:
    """Between a client and the endpoint. `seen` has pairs of an action and a partition key."""

    def __init__(self, endpoint):
        upstream = urlsplit(endpoint)
        seen = self.seen = set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                seen.update(touched(self.headers["x-amz-target"].split(".")[1], json.loads(body)))
                connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=30)
                connection.request("POST", self.path, body, dict(self.headers))
                response = connection.getresponse()
                answer = response.read()
                self.send_response(response.status)
                for name in ["content-type", "x-amz-crc32", "x-amzn-errortype"]:
                    if name in response.headers:
                        self.send_header(name, response.headers[name])
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                connection.close()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
