"""The runtime of functions in Python: asks the Runtime API for events, calls the handler, and posts its answers.

The local endpoint passes this file to the interpreter with -c. It uses the standard library only, because a package may hold
other versions of anything else.
"""

import http.client
import importlib
import json
import logging
import os
import sys
import time
import traceback

PREFIX = "/2018-06-01/runtime/"


class Api:
    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address)

    def call(self, method, path, body=None):
        self.connection.request(method, PREFIX + path, body, {"Content-Type": "application/json"} if body else {})
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()

    def report(self, path, kind, message, trace=()):
        error = {"errorMessage": message, "errorType": kind, "requestId": "", "stackTrace": list(trace)}
        self.call("POST", path, json.dumps(error).encode())


class Context:
    """The second argument of a handler."""

    def __init__(self, headers):
        environment = os.environ.get
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = environment("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = environment("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = environment("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = environment("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environment("AWS_LAMBDA_LOG_STREAM_NAME")
        self.identity = None
        self.client_context = None
        self._deadline_ms = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - int(time.time() * 1000))


class Log(logging.Handler):
    """Lambda's format of records, for functions that log without a handler of their own."""

    request_id = ""

    def emit(self, record):
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        print(f"[{record.levelname}]\t{when}.{int(record.msecs):03}Z\t{self.request_id}\t{text}", flush=True)


def told(err, skipped):
    """An exception as Lambda reports it: its class, its message, and its frames but for those of this file."""
    frames = traceback.format_list(traceback.extract_tb(err.__traceback__)[skipped:])
    kind, message = type(err).__name__, str(err)
    print(f"[ERROR] {kind}: {message}\nTraceback (most recent call last):\n{''.join(frames)}".rstrip(), flush=True)
    return kind, message, frames


def load(api):
    """The handler that the function's configuration names as MODULE.FUNCTION."""
    module, _, function = os.environ["_HANDLER"].rpartition(".")
    try:
        return getattr(importlib.import_module(module.replace("/", ".")), function)
    except AttributeError as err:
        if module not in sys.modules and module.replace("/", ".") not in sys.modules:
            told(err, 1)
        kind, message = "Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module}'"
    except ModuleNotFoundError as err:
        told(err, 1)
        kind, message = "Runtime.ImportModuleError", (
            f"Unable to import module '{module}': {err}. The package is imported with {sys.executable}, "
            "which must have what AWS installs for functions (boto3); choose an interpreter with --python or PYTHON."
        )
    except BaseException as err:
        kind, message, _ = told(err, 1)
        if isinstance(err, ImportError):
            kind, message = "Runtime.ImportModuleError", f"Unable to import module '{module}': {err}"
    api.report("init/error", kind, message)
    sys.exit(1)


def serve():
    sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]
    api = Api(os.environ["AWS_LAMBDA_RUNTIME_API"])
    log = Log()
    logging.getLogger().addHandler(log)
    handler = load(api)
    while True:
        status, headers, body = api.call("GET", "invocation/next")
        if status != 200:
            return
        context = Context(headers)
        log.request_id = context.aws_request_id
        os.environ["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id", "")
        path = f"invocation/{context.aws_request_id}/"
        try:
            answer = handler(json.loads(body), context)
        except Exception as err:
            api.report(path + "error", *told(err, 1))
            continue
        try:
            answer = json.dumps(answer).encode()
        except (TypeError, ValueError) as err:
            api.report(path + "error", "Runtime.MarshalError", f"Unable to marshal response: {err}")
            continue
        sys.stdout.flush()
        api.call("POST", path + "response", answer)


serve()
