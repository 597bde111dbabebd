"""Starts localemu with what the fork lacks (JSONata, isolated transactions), and with its IAM enforcement fixed, so that it
requires of the functions' roles what AWS requires. Functions, template and state machine are the same as everywhere. The
patches replace private functions, so any other version is refused.
"""

import copy
import importlib.metadata
import sys
import threading
import types

import jsonata
from localemu.runtime.main import main
from localemu.services.iam_enforcement import arn_builder, enforcer
from localemu.services.stepfunctions.asl.jsonata import jsonata as engine
from moto.dynamodb import models as dynamodb

VERSION = "1.3.2"
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html
TRANSACTION = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


# ---------------------------------------------------------------- Step Functions
def evaluate(expression):
    """LocalStack evaluates JSONata with a Java library that the fork has removed. This is the library that MiniStack uses."""
    return jsonata.Jsonata(expression).evaluate(None)


# ---------------------------------------------------------------- DynamoDB (LocalStack runs Amazon's own program)
one_at_a_time = threading.RLock()


def alone(action):
    def call(*args, **kwargs):
        with one_at_a_time:
            return action(*args, **kwargs)

    return call


def transaction(write):
    """A failed transaction restored its tables to their state at its start, and lost what others had written since."""

    def key(backend, request):
        table = backend.get_table(request["TableName"])
        attributes = request.get("Key") or request["Item"]
        names = filter(None, (table.hash_key_attr, table.range_key_attr))
        return table.name, {name: attributes[name] for name in names}

    def put_back(backend, name, keys, item):
        table = backend.get_table(name)
        hash_value, range_value = backend.get_keys_value(table, keys)
        if item is None:
            table.delete_item(hash_value, range_value)
        elif range_value is None:
            table.items[hash_value] = item
        else:
            table.items[hash_value][range_value] = item

    def call(backend, items):
        keys = [key(backend, request) for item in items for request in item.values()]
        before = [(*each, copy.deepcopy(backend.get_item(*each))) for each in keys]
        try:
            write(backend, items)
        except Exception:
            for each in before:
                put_back(backend, *each)
            raise

    return alone(call)


def deepcopy(value):
    """Tables need not be copied: see above. Copying one takes seconds once it holds a few thousand items."""
    return value if isinstance(value, dynamodb.Table) else copy.deepcopy(value)


def hold_transactions():
    backend = dynamodb.DynamoDBBackend
    for name in ("get_item", "put_item", "update_item", "delete_item", "query", "scan"):
        setattr(backend, name, alone(getattr(backend, name)))
    backend.transact_write_items = transaction(backend.transact_write_items)
    dynamodb.copy = types.SimpleNamespace(deepcopy=deepcopy)


# ---------------------------------------------------------------- IAM
def as_request(context, service, operation, parameters):
    """The same request, presented as another one."""
    seen = copy.copy(context)
    seen.service = types.SimpleNamespace(service_name=service)
    seen.operation = types.SimpleNamespace(name=operation)
    seen.service_request = parameters
    return seen


def requests(context):
    """What has to be allowed. The emulator requires all four of TRANSACTION on all tables, whatever the transaction does."""
    service = context.service and context.service.service_name
    if service == "dynamodb" and context.operation and context.operation.name == "TransactWriteItems":
        for item in context.service_request["TransactItems"]:
            yield from (as_request(context, service, TRANSACTION[kind], item[kind]) for kind in item)
    elif service == "stepfunctions" and context.operation:
        # IAM knows Step Functions as `states`:
        # https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html
        yield as_request(context, "states", context.operation.name, context.service_request)
    else:
        yield context


def enforced(enforce):
    def call(self, chain, context, response):
        for request in requests(context):
            enforce(self, chain, request, response)

    return call


def index(table_arn):
    """Querying an index requires a permission on the index, and none on its table:
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html"""

    def arn(parameters, region, account_id):
        name = parameters.get("IndexName")
        return table_arn(parameters, region, account_id) + (f"/index/{name}" if name else "")

    return arn


def execution(state_machine_arn):
    def arn(parameters, region, account_id):
        return parameters.get("executionArn") or state_machine_arn(parameters, region, account_id)

    return arn


def over_tls(conditions):
    """Functions use plain HTTP with the emulator; on AWS they use TLS, and policies may require it."""
    return lambda context, caller: {**conditions(context, caller), "aws:SecureTransport": "true"}


if (found := importlib.metadata.version("localemu")) != VERSION:
    sys.exit(f"localemu {VERSION} is needed, found {found}: pip install -r .ci/localstack.txt")
engine.eval_jsonata_expression = evaluate
builders = arn_builder._SERVICE_ARN_BUILDERS
builders.update(dynamodb=index(builders["dynamodb"]), states=execution(builders["states"]))
enforcer._build_conditions = over_tls(enforcer._build_conditions)
hold_transactions()
handler = enforcer.IAMEnforcementHandler
handler.__call__ = enforced(handler.__call__)
main()
