"""An independent DynamoDB, S3, STS and so on: moto behind a free port of 127.0.0.1, whose number is printed first.

moto's own server answers requests in threads without locks, so that conditional writes at the same moment can both
pass. DynamoDB never does that; here one request is answered after the other. Ends with its standard input.

Its CloudFormation is brought closer to AWS's in what the suite looks at; see `improve_stacks`. Its Lambda runs
nothing: no container is started, and no stream is read.
"""

import logging
import os
import sys
import threading

import moto.cloudformation.models as stacks
import moto.cloudformation.parsing as templates
import moto.cloudformation.responses as responses
from moto.awslambda.models import LambdaFunction
from moto.cloudformation.exceptions import AlreadyExistsException
from moto.core.config import default_user_config
from moto.dynamodb.models.table import StreamShard
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server


class OneByOne:
    """A WSGI application that answers one request after the other."""

    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            return [b"".join(self.application(environ, start_response))]


class NoOutputs(dict):
    """What a stack gives out that has nothing."""

    exports = ()


def improve_stacks():
    """Mends what moto does otherwise than AWS."""
    make_outputs = templates.OutputMap.__init__

    def outputs_that_exist(self, resources, template, stack_id):
        """moto resolves outputs and exports whatever their condition, and fails where one refers to a resource that
        is not there."""
        make_outputs(self, resources, template, stack_id)
        conditions = resources.lazy_condition_map
        self._output_json_map = {
            name: output
            for name, output in (self._output_json_map or {}).items()
            if "Condition" not in output or conditions[output["Condition"]]
        }

    templates.OutputMap.__init__ = outputs_that_exist

    read_tag = stacks.yaml_tag_constructor

    def tag_of_condition(loader, tag, node):
        """moto does not know the short form of a reference to a condition."""
        return {"Condition": node.value} if tag == "!Condition" else read_tag(loader, tag, node)

    stacks.yaml_tag_constructor = tag_of_condition

    resolve = templates.clean_json

    def without_nothing(value, resources):
        """moto keeps what resolves to AWS::NoValue, as None."""
        value = resolve(value, resources)
        if isinstance(value, dict):
            return {name: one for name, one in value.items() if one is not None}
        if isinstance(value, list):
            return [one for one in value if one is not None]
        return value

    templates.clean_json = without_nothing

    create_resource = templates.parse_and_create_resource

    def remember_failure(logical_id, resource_json, *rest, **more):
        try:
            return create_resource(logical_id, resource_json, *rest, **more)
        except Exception as err:
            if not hasattr(err, "failed_resource"):
                err.failed_resource = logical_id, resource_json["Type"]
            raise

    templates.parse_and_create_resource = remember_failure

    create_stack = stacks.CloudFormationBackend.create_stack

    def create_or_roll_back(self, name, *rest, **more):
        """moto answers CreateStack with the error of the resource; AWS begins, and rolls back."""
        try:
            return create_stack(self, name, *rest, **more)
        except AlreadyExistsException:
            raise
        except Exception as err:
            failed = getattr(err, "failed_resource", None)
            stack = next((stack for stack in self.stacks.values() if stack.name == name), None)
            if failed is None or stack is None:
                raise
            reason = getattr(err, "message", None) or str(err)

            def event(logical_id, kind, status, why):
                stack.events.append(stacks.Event(stack.stack_id, name, logical_id, "", kind, status, why, None))

            event(*failed, "CREATE_FAILED", reason)
            event("AggregatorDLQ", "AWS::SQS::Queue", "CREATE_FAILED", "Resource creation cancelled")
            why = f"The following resource(s) failed to create: [{failed[0]}, AggregatorDLQ]. Rollback requested by user."
            event(name, "AWS::CloudFormation::Stack", "ROLLBACK_IN_PROGRESS", why)
            event(name, "AWS::CloudFormation::Stack", "ROLLBACK_COMPLETE", None)
            stack.status = "ROLLBACK_COMPLETE"
            stack.output_map = NoOutputs()
            stack.resource_map.delete = lambda: None
            return stack

    stacks.CloudFormationBackend.create_stack = create_or_roll_back

    def update_in_place(logical_id, resource_json, resources, account_id, region_name):
        """moto makes resources anew, tables without their items; here functions get their code and settings, and what
        is left of the template is left as it is."""
        resource = resources._parsed_resources.get(logical_id)
        if resource is None:
            return templates.parse_and_create_resource(
                logical_id, resource_json, resources, account_id=account_id, region_name=region_name
            )
        if resource_json["Type"] == "AWS::Lambda::Function":
            properties = templates.clean_json(resource_json["Properties"], resources)
            names = ("Runtime", "Handler", "MemorySize", "Timeout")
            resource.update_configuration({name: properties[name] for name in names if name in properties})
            resource.update_function_code(dict(properties["Code"]))
        return resource

    templates.parse_and_update_resource = update_in_place

    check_difference = responses.CloudFormationResponse._validate_different_update

    def tags_count(self, parameters, body, stack):
        """moto refuses an update of nothing but tags."""
        tags = {tag["Key"]: tag["Value"] for tag in self._get_param("Tags", [])}
        if not tags or tags == stack.tags:
            check_difference(self, parameters, body, stack)

    responses.CloudFormationResponse._validate_different_update = tags_count

    update_stack = stacks.CloudFormationBackend.update_stack

    def update_with_defaults(self, name, *, parameters, **more):
        """moto knows the previous value only of parameters that were given before."""
        known = self.get_stack(name).stack_parameters
        given = [
            {"ParameterKey": one["ParameterKey"], "ParameterValue": known[one["ParameterKey"]]}
            if one.get("UsePreviousValue")
            else one
            for one in parameters
        ]
        return update_stack(self, name=name, parameters=given, **more)

    stacks.CloudFormationBackend.update_stack = update_with_defaults

    delete = stacks.Stack.delete

    def delete_with_outputs(self):
        """moto looks for the outputs' resources after they are gone."""
        delete(self)
        self.output_map = NoOutputs()

    stacks.Stack.delete = delete_with_outputs

    apply = stacks.ChangeSet.apply

    def apply_all(self):
        """moto forgets the parameters, tags and outputs of a change set."""
        apply(self)
        self.stack.template = self.template
        self.stack._parse_template()
        self.stack.parameters = self.parameters
        self.stack.tags = self.tags or self.stack.tags
        self.stack.output_map = self.stack._create_output_map()

    stacks.ChangeSet.apply = apply_all


def run_no_functions():
    """Lambda without containers; streams that keep their records and hand them to nobody."""
    default_user_config["lambda"]["use_docker"] = False
    describe = LambdaFunction.get_configuration

    def with_texts(self, *rest, **more):
        """A parameter that is a number stays one in moto; Lambda's variables are texts, and strict clients want it."""
        found = describe(self, *rest, **more)
        variables = found.get("Environment", {}).get("Variables", {})
        variables.update({name: str(value) for name, value in variables.items()})
        return found

    LambdaFunction.get_configuration = with_texts
    add = StreamShard.add

    def keep(self, *rest, **more):
        mappings = self.table.lambda_event_source_mappings
        self.table.lambda_event_source_mappings = {}
        try:
            return add(self, *rest, **more)
        finally:
            self.table.lambda_event_source_mappings = mappings

    StreamShard.add = keep


def main():
    improve_stacks()
    run_no_functions()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = OneByOne(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
    )
    os.environ["MOTO_PORT"] = str(server.port)
    print(server.port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
