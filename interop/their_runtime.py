"""Runs the original's aggregator as AWS Lambda's Python runtime does: asks for events, answers them."""

import http.client
import json
import os
import types

from zae_limiter_aggregator.handler import handler

PREFIX = "/2018-06-01/runtime/invocation/"


def serve():
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        connection.request("GET", PREFIX + "next")
        response = connection.getresponse()
        event = json.loads(response.read())
        request = response.headers["Lambda-Runtime-Aws-Request-Id"]
        context = types.SimpleNamespace(aws_request_id=request, function_name="their-aggregator")
        answer = json.dumps(handler(event, context)).encode()
        connection.request("POST", f"{PREFIX}{request}/response", answer)
        connection.getresponse().read()


serve()
