#!/usr/bin/env python3
"""Starts a local AWS (MiniStack, patched) and deploys a SAM template to it.

When the stack is complete, prints one line of JSON: {endpoint, region, api_url, outputs, pid}. Runs until stdin ends
or SIGINT, SIGTERM or SIGHUP arrives, and then ends every function's process too. Nothing is kept.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import contextvars
import datetime
import functools
import hashlib
import importlib
import importlib.metadata
import io
import json
import logging
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import uuid
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # Python leaves it out in isolated mode (-I)
import meter  # noqa: E402

MINISTACK = "1.5.33"  # The patches replace private functions, which other versions may have changed.
REGION = "eu-central-1"
SCRATCH = Path(__file__).resolve().parents[3] / "target"
# Only this is kept of the caller's environment: a profile, a proxy or a service's own endpoint would lead
# to the real AWS, and MiniStack has switches of its own.
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "RUST_BACKTRACE", "LOG_LEVEL")
KEPT_ENVIRONMENT += ("SFN_WAIT_SCALE", "LAMBDA_WARM_TTL_SECONDS", "LAMBDA_ASYNC_RETRY_BASE_SECONDS")
KEPT_ENVIRONMENT += ("AUTH", "TRANSPORT")  # AUTH=true: permissions are checked; TRANSPORT=http: HTTP is not TLS
KEPT_ENVIRONMENT += ("HARMONY_FAULTS",)  # read only by functions built with fault points
# How hostile this AWS is: the maximum instances of all functions at once (0: no limit), the seconds that an EXPRESS
# execution may take, and which share of the messages that a filter holds back get through, as if it had not settled.
UNKINDNESS = {"LAMBDA_ACCOUNT_CONCURRENCY": "0", "SFN_EXPRESS_SECONDS": "300", "SNS_UNSETTLED_FILTERS": "0"}


class Failure(Exception):
    """A problem that the user can fix; the message says how."""


# ---------------------------------------------------------------- patches: where AWS and MiniStack differ
def around(wrapper):
    """Makes a patch from a function that gets the original as its first argument."""
    return lambda original: functools.partial(wrapper, original)


def instead(replacement):
    """Makes a patch that does not need the original."""
    return lambda original: replacement


def service(name):
    return importlib.import_module(f"ministack.services.{name}")


def answer_at_once(handler):
    """The Runtime API answers a function immediately and in one piece; MiniStack sends head and body separately, and
    Nagle's algorithm delays the second for 40 ms.
    """
    handler.disable_nagle_algorithm = True
    handler.wbufsize = -1
    return handler


@around
def log_settings(original, config, *args):
    """A function learns its LoggingConfig from two environment variables, which the Rust runtime reads."""
    logs = config.get("LoggingConfig") or {}
    level = {"AWS_LAMBDA_LOG_LEVEL": logs["ApplicationLogLevel"]} if "ApplicationLogLevel" in logs else {}
    return {**original(config, *args), "AWS_LAMBDA_LOG_FORMAT": logs.get("LogFormat", "Text"), **level}


@around
def binary_bodies(original, media_type, binary_types):
    """A body without a Content-Type counts as JSON."""
    return original(media_type or "application/json", binary_types)


@around
def import_api(original, spec, *args):
    """The OpenAPI body may contain gateway responses and binary media types too."""
    api = service("apigateway_v1")
    name = original(spec, *args)
    for kind, response in spec.get("x-amazon-apigateway-gateway-responses", {}).items():
        api._put_gateway_response(name, kind, response)
    api._rest_apis[name]["binaryMediaTypes"] = spec.get("x-amazon-apigateway-binary-media-types", [])
    return name


def start_at_once(clock):
    """An execution starts immediately; MiniStack sleeps for 0.15 s first, and for that long nowhere else."""
    replaced = {"sleep": lambda seconds: seconds == 0.15 or clock.sleep(seconds)}
    return types.SimpleNamespace(**{**vars(clock), **replaced})


@around
def retry_delay(original, retriers, error, counts):
    """Retry honours MaxDelaySeconds and JitterStrategy; MiniStack computes IntervalSeconds * BackoffRate ** count."""
    retrier, index = original(retriers, error, counts)
    if retrier is not None:
        delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2) ** counts.get(index, 0)
        delay = min(delay, retrier.get("MaxDelaySeconds", math.inf))
        delay *= random.random() if retrier.get("JitterStrategy") == "FULL" else 1
        retrier = {**retrier, "IntervalSeconds": delay, "BackoffRate": 1}
    return retrier, index


@around
def function_settings(original, *args):
    """CloudFormation sets DeadLetterConfig and ReservedConcurrentExecutions; MiniStack drops both."""
    name, attributes = original(*args)
    properties = args[1] if len(args) == 3 else args[2]  # create has the new ones there, update the old ones before
    func = service("lambda_svc")._functions[name]
    func["config"]["DeadLetterConfig"] = properties.get("DeadLetterConfig", {})
    func["concurrency"] = properties.get("ReservedConcurrentExecutions")
    return name, attributes


def resource_types(handlers):
    function = handlers["AWS::Lambda::Function"]
    function.update(create=function_settings(function["create"]), update=function_settings(function["update"]))
    return handlers


def read_logs_at_once(worker):
    """A function's log lines are available when it answers; MiniStack waits 50 ms for a first line."""
    drain = functools.partialmethod(worker._drain_stderr_bounded, first_line_wait=0.002, idle_confirm=0.002)
    worker._drain_stderr_bounded = drain
    return worker


# ---------------------------------------------------------------- patches: permissions, checked with AUTH=true
def role_may(role, action, resource):
    """Whether a role allows what a service does on its behalf; MiniStack only checks what functions do themselves."""
    app, iam = importlib.import_module("ministack.app"), importlib.import_module("ministack.core.iam_evaluator")
    account, name = role.split(":")[4], role.split("/")[-1]
    session = f"arn:aws:sts::{account}:assumed-role/{name}/service"
    context = iam.EvalContext(session, "AssumedRole", account, action, resource, REGION, secure_transport=True)
    return not app.AUTH or iam.evaluate(context, iam._gather_role_policies(name, account)).decision == "Allow"


@around
def note_decision(original, context, *policies):
    """Logs every decision about a role."""
    result = original(context, *policies)
    if context.principal_type == "AssumedRole":
        role = context.principal_arn.split("/")[1]
        logger = logging.getLogger("permissions")
        logger.info("%s: %s may do %s on %s", result.decision, role, context.action, context.resource_arn)
    return result


@around
def as_over_tls(original, source, is_tls):
    """MiniStack uses HTTP, where AWS uses TLS."""
    original(source, is_tls or os.environ.get("TRANSPORT") != "http")


EXECUTION = contextvars.ContextVar("the execution that a task belongs to")


@around
def task(original, state, state_input, execution, context):
    EXECUTION.set(execution)
    return original(state, state_input, execution, context)


@around
def integration(original, resource, arguments):
    """The state machine's role has to allow what a task does, and an execution that was ended does nothing more."""
    if EXECUTION.get()["status"] != "RUNNING":
        raise InterruptedError("the execution has ended")  # which no Retry or Catch matches
    role = service("stepfunctions")._state_machines[EXECUTION.get()["stateMachineArn"]]["roleArn"]
    kind = resource.split(":::")[-1].split(".")[0]
    if kind == "lambda:invoke":
        asked = "lambda:InvokeFunction", arguments["FunctionName"]
    elif kind == "sqs:sendMessage":
        asked = "sqs:SendMessage", service("sqs")._get_q(arguments["QueueUrl"])["attributes"]["QueueArn"]
    else:
        return original(resource, arguments)
    if kind == "lambda:invoke" and Outage.refuses():
        error = {"throttle": "TooManyRequestsException", "denial": "AccessDeniedException"}[Outage.kind]
        raise service("stepfunctions")._ExecutionError(f"Lambda.{error}", "Refused, as an outage was ordered")
    if not role_may(role, *asked):
        error = f"{kind.split(':')[0].capitalize()}.AccessDeniedException"
        raise service("stepfunctions")._ExecutionError(error, f"{role} may not do {' on '.join(asked)}")
    return original(resource, arguments)


# ---------------------------------------------------------------- patches: executions of the type EXPRESS
@around
def start_execution(original, data):
    """EXPRESS starts every requested execution: "Starting multiple workflows with the same name results in concurrent
    executions". MiniStack refuses a name that exists.
    https://docs.aws.amazon.com/step-functions/latest/dg/express-at-least-once-execution.html
    """
    machine = service("stepfunctions")._state_machines.get(data.get("stateMachineArn"), {})
    if machine.get("type") != "EXPRESS":
        return original(data)
    status, headers, answer = original({**data, "name": f"{data.get('name') or uuid.uuid4()}:{uuid.uuid4()}"})
    # It cannot be described: https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
    return status, headers, answer.replace(b":execution:", b":express:")


@around
def run_execution(original, arn):
    """EXPRESS runs for five minutes at most.
    https://docs.aws.amazon.com/step-functions/latest/dg/choosing-workflow-type.html
    """
    execution = service("stepfunctions")._executions[arn]
    execution["name"], is_express, _ = execution["name"].partition(":")  # no name has a colon: see start_execution
    if not is_express:
        return original(arn)
    seconds, here = float(os.environ["SFN_EXPRESS_SECONDS"]), contextvars.copy_context()
    limit = threading.Timer(seconds, here.run, (time_out, execution))
    limit.start()
    try:
        original(arn)
    finally:
        limit.cancel()


def time_out(execution):
    """From now on: running invocations of the execution continue, but their results are discarded."""
    sfn = service("stepfunctions")
    execution.update(status="TIMED_OUT", stopDate=sfn.now_iso(), error="States.Timeout")
    sfn._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {"error": "States.Timeout"}})


@around
def fail_execution(original, execution, *reason):
    """An execution ends once; MiniStack lets a stopped one fail."""
    if execution["status"] == "RUNNING":
        original(execution, *reason)


# ---------------------------------------------------------------- an outage, requested by the parent process
class Outage:
    """Refuses a share of the state machine's invocations and of everything published to a topic: as a throttle, or as a
    missing permission. Requested by a line of JSON on stdin: {"refuse": share, "as": "throttle" | "denial"}.
    """

    share, kind = 0.0, "denial"

    @classmethod
    def order(cls, line):
        cls.share, cls.kind = line["refuse"], line["as"]

    @classmethod
    def refuses(cls):
        return random.random() < cls.share


@around
def publish(original, data):
    """Messages that programs publish."""
    if not Outage.refuses():
        return original(data)
    code, status = {"throttle": ("Throttled", 429), "denial": ("AuthorizationError", 403)}[Outage.kind]
    return service("sns")._error(code, "Refused, as an outage was ordered", status)


# ---------------------------------------------------------------- patches: asynchronous invocation
class Invocation:
    """An asynchronous invocation. AWS queues the event, retries it after an error or a throttle, and sends a record of
    the result to a destination, or the event itself to a dead-letter queue. MiniStack starts all events at once, tries
    those from SNS and EventBridge only once, does not know OnSuccess, and sends incomplete records to either.
    """

    AT_ONCE = 8  # instances of one function: each is a process; further events wait in the function's queue
    queues = {}

    def __init__(self, func, event):
        self.arn = func["config"]["FunctionArn"]
        self.name, self.qualifier = [*self.arn.split(":")[6:], "$LATEST"][:2]
        self.event, self.request_id = event, str(uuid.uuid4())
        self.accepted, self.pause = time.time(), 0
        self.attempts, self.throttles, self.result = 0, 0, None
        self.context = contextvars.copy_context()  # MiniStack keeps the account and the region there.
        self.enqueue()

    def enqueue(self):
        if self.name not in self.queues:
            self.queues.setdefault(self.name, concurrent.futures.ThreadPoolExecutor(self.AT_ONCE))
        task = self.queues[self.name].submit(self.context.copy().run, self.attempt)
        task.add_done_callback(lambda done: done.result())  # Otherwise exceptions would be lost.

    def attempt(self):
        lambdas = service("lambda_svc")
        func, config = lambdas._get_func_record_for_qualifier(self.name, self.qualifier)
        if func is None:
            return  # deleted meanwhile
        configs = lambdas._functions[self.name].get("event_invoke_configs", {})
        settings = configs.get(self.qualifier) or self.qualifier == "$LATEST" and configs.get("") or {}
        expiry = self.accepted + settings.get("MaximumEventAgeInSeconds", 21600)
        if time.time() < expiry:
            self.run(func, {**config, "FunctionArn": self.arn})
        if self.result and not self.result.get("error"):
            condition = "Success"
        elif lambdas._reserved_concurrency(func, config) == 0:
            condition = "ZeroReservedConcurrency"
        elif self.attempts > settings.get("MaximumRetryAttempts", 2):
            condition = "RetriesExhausted"
        elif time.time() + self.pause >= expiry:
            condition = "EventAgeExceeded"
        else:
            threading.Timer(self.pause, self.enqueue).start()
            return
        self.finish(condition, config, settings.get("DestinationConfig", {}))

    def run(self, func, config):
        """MiniStack's _execute_function, with the same request id for every attempt. A throttle is not an attempt."""
        lambdas = service("lambda_svc")
        slot, _ = lambdas._acquire_execution_slot(func, config)
        if slot is None:
            self.throttles += 1
        else:
            self.attempts += 1
            func = {**func, "config": config}
            try:
                execute = lambdas._execute_function_dispatch
                self.result = execute(func, config, self.event, self.request_id, time.time())
            finally:
                lambdas._release_execution_slot(slot)
            show_log(self.name, self.result)
        # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html: after an error a minute, then
        # two (which the base shortens); after a throttle a second, and twice as long each time up to five minutes.
        base, failures = lambdas._LAMBDA_ASYNC_RETRY_BASE_SECONDS, self.attempts
        if slot is None:
            base, failures = min(base, 1), self.throttles
        self.pause = min(base * 2 ** (failures - 1), 300)

    def finish(self, condition, config, destinations):
        outcome = "Success" if condition == "Success" else "Failure"
        if destination := destinations.get(f"On{outcome}", {}).get("Destination"):
            title = f"Lambda Function Invocation Result - {outcome}"
            deliver(config["Role"], destination, self.record(condition, config["Version"]), title)
        dead_letters = (config.get("DeadLetterConfig") or {}).get("TargetArn")
        if dead_letters and outcome == "Failure":
            deliver(config["Role"], dead_letters, self.event, attributes=self.reason())

    def record(self, condition, version):
        """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""
        record = {
            "version": "1.0",
            "timestamp": timestamp(),
            "requestContext": {
                "requestId": self.request_id,
                "functionArn": ":".join([*self.arn.split(":")[:7], self.qualifier]),
                "condition": condition,
                "approximateInvokeCount": self.attempts,
            },
            "requestPayload": self.event,
        }
        if self.result:
            error = {"functionError": "Unhandled"} if self.result.get("error") else {}
            record["responseContext"] = {"statusCode": 200, "executedVersion": version, **error}
            record["responsePayload"] = self.result.get("body")
        return record

    def reason(self):
        """The attributes of a dead letter."""
        code, body = ("200", self.result["body"]) if self.result else ("429", {"errorMessage": "Rate Exceeded."})
        values = {"RequestID": self.request_id, "ErrorMessage": str(body.get("errorMessage"))[:1024]}
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}
        return {**attributes, "ErrorCode": {"DataType": "Number", "StringValue": code}}


@around
def throttled(original, **reason):
    """A throttled task fails with an error of that name; MiniStack does not have it.
    https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html
    """
    result = original(**reason)
    result["body"]["errorType"] = "Lambda.TooManyRequestsException"
    return result


@around
def acquire_slot(original, func, config):
    slot, limit = original(func, config)
    if slot is None:
        service("lambda_svc").logger.info("Throttled: %s, by the limit of the %s", config["FunctionName"], limit)
    return slot, limit


def invoke(arn, event):
    lambdas = service("lambda_svc")
    func, config, _ = lambdas._get_func_record_for_ref(arn)
    lambdas.invoke_async_with_retry(lambdas._execution_record_for_config(func, config), event)


DELIVERY = {"sqs": "sqs:SendMessage", "sns": "sns:Publish", "lambda": "lambda:InvokeFunction", "events": "events:PutEvents"}


def deliver(role, arn, document, title=None, attributes=None):
    """Sends a record to a destination, or an event to a dead-letter queue. If that fails it is lost, as on AWS."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    kind = arn.split(":")[2]
    try:
        if not role_may(role, DELIVERY[kind], arn) or kind == "sns" and Outage.refuses():
            raise PermissionError(f"{role} may not do {DELIVERY[kind]}")
        if kind == "sqs":
            queue = service("sqs")._queue_by_arn(arn)
            service("sqs")._act_send_message({"MessageBody": text, "MessageAttributes": attributes}, queue["url"])
        elif kind == "sns":
            service("sns").publish_internal(arn, text, message_attributes=attributes)
        elif kind == "lambda":
            invoke(arn, document)
        else:
            entry = {"EventBusName": arn, "Source": "lambda", "DetailType": title, "Detail": text}
            entry["Resources"] = [arn, document["requestContext"]["functionArn"]]
            service("eventbridge")._put_events({"Entries": [entry]})
    except Exception:
        service("lambda_svc").logger.exception("Lost, as %s does not take it: %s", arn, text)


def rule_target(arn, event):
    """EventBridge invokes a function asynchronously, with retries; MiniStack tries once."""
    invoke(arn, json.loads(event))


def show_log(name, result):
    if result.get("log"):
        service("lambda_svc").logger.info("Lambda %s output:\n%s", name, result["log"])


def timestamp():
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---------------------------------------------------------------- patches: subscriptions
def permits(policy, action, resource, topic):
    """Whether a topic has this permission. MiniStack checks no policy unless it checks every caller's permissions."""
    from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy

    source = {"aws:sourcearn": topic, "aws:sourceaccount": topic.split(":")[4]}
    context = EvalContext("*", "Service", "", action, resource, REGION, service_context=source, secure_transport=True)
    return evaluate_resource_policy(policy, context, service="sns.amazonaws.com").decision == "Allow"


def accepts(queue_arn, topic):
    queue = service("sqs")._queue_by_arn(queue_arn)
    return queue is not None and permits(queue["attributes"].get("Policy"), "sqs:SendMessage", queue_arn, topic)


@around
def lets_through(original, *message):
    """A filter takes time to settle: "Additions or changes to a subscription filter policy require up to 15 minutes to
    fully take effect". https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html
    """
    return original(*message) or random.random() < float(os.environ["SNS_UNSETTLED_FILTERS"])


@around
def subscribed_queue(original, endpoint, *args, topic_arn, **kwargs):
    """A message that cannot be delivered goes to the subscription's dead-letter queue; MiniStack drops it."""
    sns = service("sns")
    subscription = next(each for each in sns._topics[topic_arn]["subscriptions"] if each["endpoint"] == endpoint)
    redrive = json.loads(subscription["attributes"].get("RedrivePolicy") or "{}")
    for queue in (endpoint, redrive.get("deadLetterTargetArn", "")):
        if accepts(queue, topic_arn):
            return original(queue, *args, topic_arn=topic_arn, **kwargs)
    sns.logger.warning("Lost, as %s does not take it from %s", endpoint, topic_arn)


def subscribed_function(endpoint, envelope, topic, subscription, _, message, attributes):
    """SNS invokes a function asynchronously, with retries; MiniStack tries once, and some fields differ from AWS."""
    func, *_ = service("lambda_svc")._get_func_record_for_ref(endpoint)
    if not func or not permits(func.get("policy"), "lambda:InvokeFunction", endpoint, topic):
        service("sns")._deliver_to_sqs(endpoint, envelope, False, message, topic_arn=topic)
        return
    sns = {"Subject": None, "MessageAttributes": {}, **json.loads(envelope), "Timestamp": timestamp()}
    sns = {name.replace("URL", "Url"): value for name, value in sns.items()}
    record = {"EventVersion": "1.0", "EventSubscriptionArn": subscription, "EventSource": "aws:sns", "Sns": sns}
    invoke(endpoint, {"Records": [record]})


# ---------------------------------------------------------------- patches: queues
@around
def one_at_a_time(original, *args, **kwargs):
    """SQS loses no message; MiniStack replaces a queue's list of messages while other threads append to the old one."""
    with service("sqs")._queues_lock:
        return original(*args, **kwargs)


def look_often(wake):
    """Lambda receives a message as soon as its visibility timeout has ended; MiniStack checks once per second."""
    return types.SimpleNamespace(set=wake.set, clear=wake.clear, wait=lambda seconds: wake.wait(0.05))


def run_batch(mapping, func, event, messages, queue_url, _):
    """An invalid answer fails the whole batch; MiniStack treats it as success, and ignores the queue for a second after
    an error."""
    polling = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
    if not all(role_may(func["config"]["Role"], action, mapping["EventSourceArn"]) for action in polling):
        mapping["LastProcessingResult"] = "PROBLEM: The function's role may not receive from the queue"
        return
    handles = {message["id"]: message["receipt_handle"] for message in messages}
    result = invoke_with_batch(mapping, func, event)
    show_log(mapping["FunctionName"], result)
    failed = set()
    if result.get("error"):
        failed = handles.keys()
    elif "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", []):
        failed = failed_items(result.get("body"), handles.keys())
    done = {handle for message, handle in handles.items() if message not in failed}
    service("sqs")._delete_messages_for_esm(queue_url, done)
    mapping["LastProcessingResult"] = "PROBLEM: Function call failed" if result.get("error") else "OK"


def invoke_with_batch(mapping, func, event):
    """A throttled mapping keeps its messages and retries until their visibility timeout has passed.
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    queue = service("sqs")._queue_by_arn(mapping["EventSourceArn"])
    deadline, pause = time.time() + int(queue["attributes"]["VisibilityTimeout"]), 0.1
    while (result := service("lambda_svc")._execute_function(func, event)).get("throttle"):
        if time.time() + pause > deadline:
            break
        time.sleep(pause)
        pause = min(2 * pause, 5)
    return result


def failed_items(answer, messages):
    """https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html"""
    try:
        failed = {item["itemIdentifier"] for item in answer and answer.get("batchItemFailures") or []}
    except (AttributeError, KeyError, TypeError):
        return messages
    return failed if failed <= messages else messages


def named_queue(data, parameter):
    sqs = service("sqs")
    queue = sqs._queue_by_arn(data[parameter])
    if queue is None:
        reason = f"The resource that you specified for the {parameter} parameter doesn't exist."
        raise sqs._Err("ResourceNotFoundException", reason, 404)
    return queue


def source_queues(dead_letter_queue):
    arn = dead_letter_queue["attributes"]["QueueArn"]
    queues = [(queue, queue["attributes"].get("RedrivePolicy")) for queue in service("sqs")._queues.values()]
    return [queue for queue, policy in queues if policy and json.loads(policy).get("deadLetterTargetArn") == arn]


def list_dead_letter_source_queues(data, url):
    sqs = service("sqs")
    return {"queueUrls": [sqs._externalize_url(queue["url"]) for queue in source_queues(sqs._get_q(url))]}


def start_message_move_task(data, _):
    """Moves the messages immediately, so a task is never seen running."""
    sqs = service("sqs")
    source = named_queue(data, "SourceArn")
    destination = named_queue(data, "DestinationArn") if data.get("DestinationArn") else None
    if not source_queues(source):
        raise sqs._Err("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
    if source is destination:
        raise sqs._Err("InvalidParameterValue", "Source queue arn and destination queue arn cannot be the same.")
    now = time.time()
    visible = [message for message in source["messages"] if message["visible_at"] <= now]
    moved = [message["id"] for message in visible if move(message, destination)]
    source["messages"] = [message for message in source["messages"] if message["id"] not in moved]
    given = {name: data[name] for name in data.keys() & {"SourceArn", "DestinationArn", "MaxNumberOfMessagesPerSecond"}}
    counts = {"ApproximateNumberOfMessagesMoved": len(moved), "ApproximateNumberOfMessagesToMove": len(visible)}
    task = {"Status": "COMPLETED", **given, **counts, "StartedTimestamp": int(now * 1000)}
    if len(moved) < len(visible):
        task.update(Status="FAILED", FailureReason="CouldNotDetermineMessageSource")
    source["move_tasks"] = [task, *source.get("move_tasks", [])]
    return {"TaskHandle": str(uuid.uuid4())}


def move(message, destination):
    """The message becomes a new one with a new id. False if its source is unknown."""
    sqs = service("sqs")
    destination = destination or sqs._queue_by_arn(message["sys"].get("DeadLetterQueueSourceArn", ""))
    content = {"MessageBody": message["body"], "MessageAttributes": message["message_attributes"]}
    return bool(destination and sqs._act_send_message(content, destination["url"]))


def list_message_move_tasks(data, _):
    return {"Results": named_queue(data, "SourceArn").get("move_tasks", [])[: data.get("MaxResults", 1)]}


def cancel_message_move_task(data, _):
    raise service("sqs")._Err("ResourceNotFoundException", "Task does not exist.", 404)


def queue_actions(actions):
    """MiniStack does not have these four."""
    added = {
        "ListDeadLetterSourceQueues": list_dead_letter_source_queues,
        "StartMessageMoveTask": start_message_move_task,
        "ListMessageMoveTasks": list_message_move_tasks,
        "CancelMessageMoveTask": cancel_message_move_task,
    }
    return {name: one_at_a_time(action) for name, action in {**actions, **added}.items()}


PATCHES = (
    ("socketserver", "StreamRequestHandler", answer_at_once),
    ("ministack.app", "pin_request_origin", as_over_tls),
    ("ministack.core.iam_evaluator", "evaluate", note_decision),
    ("ministack.core.lambda_runtime", "Worker", read_logs_at_once),
    ("ministack.services.apigateway_v1", "_import_rest_api", import_api),
    ("ministack.services.apigateway_v1", "_media_type_matches", binary_bodies),
    ("ministack.services.cloudformation.provisioners", "_RESOURCE_HANDLERS", resource_types),
    ("ministack.services.eventbridge", "_dispatch_to_lambda", instead(rule_target)),
    ("ministack.services.eventbridge", "_dispatch_to_sqs", one_at_a_time),
    ("ministack.services.lambda_svc", "_ESM_IDLE_WAKE_GAP_SECONDS", instead(0)),  # 50 ms after finding no message
    ("ministack.services.lambda_svc", "_acquire_execution_slot", acquire_slot),
    ("ministack.services.lambda_svc", "_esm_wake", look_often),
    ("ministack.services.lambda_svc", "_provided_worker_env", log_settings),
    ("ministack.services.lambda_svc", "_run_sqs_batch", instead(run_batch)),
    ("ministack.services.lambda_svc", "_throttle_response", throttled),
    ("ministack.services.lambda_svc", "invoke_async_with_retry", instead(Invocation)),
    ("ministack.services.sns", "_deliver_to_lambda", instead(subscribed_function)),
    ("ministack.services.sns", "_deliver_to_sqs", subscribed_queue),
    ("ministack.services.sns", "_deliver_to_sqs", one_at_a_time),
    ("ministack.services.sns", "_matches_filter_policy", lets_through),
    ("ministack.services.sns", "_publish", publish),
    ("ministack.services.sqs", "_HANDLERS", queue_actions),
    ("ministack.services.sqs", "_act_send_message", one_at_a_time),
    ("ministack.services.sqs", "_collect_msgs", one_at_a_time),
    ("ministack.services.sqs", "_dlq_sweep", one_at_a_time),
    ("ministack.services.sqs", "_expire_retained", one_at_a_time),
    ("ministack.services.sqs", "_queues_lock", instead(threading.RLock())),
    ("ministack.services.stepfunctions", "_execute_task", task),
    ("ministack.services.stepfunctions", "_fail_execution", fail_execution),
    ("ministack.services.stepfunctions", "_find_matching_retrier", retry_delay),
    ("ministack.services.stepfunctions", "_invoke_resource", integration),
    ("ministack.services.stepfunctions", "_run_execution", run_execution),
    ("ministack.services.stepfunctions", "_start_execution", start_execution),
    ("ministack.services.stepfunctions", "time", start_at_once),
)


# ---------------------------------------------------------------- functions are child processes: none may outlive this
class Child(subprocess.Popen):
    spawning = threading.RLock()
    alive = []

    def __init__(self, *args, **kwargs):
        with Child.spawning:  # stop() never releases it, so that nothing starts afterwards.
            super().__init__(*args, **kwargs)
            Child.alive = [child for child in Child.alive if child.poll() is None] + [self]


def stop(code, scratch):
    Child.spawning.acquire()
    for child in Child.alive:
        child.kill()
    for child in Child.alive:
        child.wait()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)  # sys.exit would wait for MiniStack's threads, some of which sleep for minutes.


# ---------------------------------------------------------------- what `sam package` and `sam deploy` do
def zipped(folder):
    """The same bytes for the same files. Not compressed, because it is not sent anywhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.external_attr = path.stat().st_mode << 16  # `bootstrap` stays executable
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def package(template, root, functions, put):
    uris = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::StateMachine": "DefinitionUri"}
    for definition in template.get("Resources", {}).values():
        properties, name = definition.get("Properties", {}), uris.get(definition.get("Type"))
        uri = properties.get(name)
        if not isinstance(uri, str) or uri.startswith("s3://"):
            continue
        # CodeUri is the source. Its build is in a folder of the same name elsewhere.
        folder = functions / Path(uri).name if name == "CodeUri" else root / uri
        file = folder / "bootstrap" if name == "CodeUri" else folder
        if not file.is_file():
            way_out = f": run `make {'faults' if functions.name == 'faults' else 'build'}`" if name == "CodeUri" else ""
            raise Failure(f"{file} is missing{way_out}")
        # A new object, because several resources may share one through a YAML anchor.
        body = zipped(folder) if name == "CodeUri" else file.read_bytes()
        definition["Properties"] = {**properties, name: put(body)}


def deploy(endpoint, path, stack, parameters, functions):
    import boto3
    from ministack.services.cloudformation.engine import _parse_template

    s3, cloudformation, dynamodb = (boto3.client(name) for name in ("s3", "cloudformation", "dynamodb"))
    bucket = "artifacts"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(body):
        key = hashlib.sha256(body).hexdigest()
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return {"Bucket": bucket, "Key": key}

    template = _parse_template(path.read_text())
    package(template, path.parent, functions, put)
    if unknown := parameters.keys() - template.get("Parameters", {}).keys():  # MiniStack would accept them.
        raise Failure(f"{path} has no parameter {', '.join(sorted(unknown))}")
    cloudformation.create_stack(
        StackName=stack,
        TemplateURL=f"{endpoint}/{bucket}/{put(json.dumps(template).encode())['Key']}",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    deadline = time.monotonic() + 60
    while (state := cloudformation.describe_stacks(StackName=stack)["Stacks"][0])["StackStatus"] != "CREATE_COMPLETE":
        if state["StackStatus"] != "CREATE_IN_PROGRESS":
            events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]  # newest first
            first = ([event for event in events if event["ResourceStatus"] == "CREATE_FAILED"] or events)[-1]
            raise Failure(f"{first['LogicalResourceId']} failed: {first.get('ResourceStatusReason')}")
        if time.monotonic() > deadline:
            raise Failure(f"stack {stack} is not complete after a minute")
        time.sleep(0.05)
    for name, definition in template["Resources"].items():
        # MiniStack's CloudFormation drops TimeToLiveSpecification.
        if time_to_live := definition.get("Properties", {}).get("TimeToLiveSpecification"):
            table = cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=name)
            table = table["StackResourceDetail"]["PhysicalResourceId"]
            dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=time_to_live)
    return {output["OutputKey"]: output["OutputValue"] for output in state.get("Outputs", [])}


# ---------------------------------------------------------------- start
def key_and_value(text):
    key, value = text.split("=", 1)
    return key, value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="to listen on; default: loopback")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--log", default=os.devnull, metavar="FILE", help="file for MiniStack's log; default: none")
    parser.add_argument("--work", metavar="FILE", help="file for one line of JSON per piece of work (see meter.py)")
    parser.add_argument("--functions", type=Path, metavar="DIR", help="a folder per function; default: target/lambda")
    parser.add_argument("--parameter", type=key_and_value, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-stdin-watch", action="store_true", help="do not end when stdin does")
    return parser.parse_args()


def set_environment(endpoint, address, scratch):
    kept = {name: os.environ[name] for name in (*KEPT_ENVIRONMENT, *UNKINDNESS) if name in os.environ}
    os.environ.clear()  # The functions inherit everything set below.
    os.environ.update({**UNKINDNESS, **kept})
    os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    os.environ.update(AWS_EC2_METADATA_DISABLED="true", AWS_REGION=REGION, AWS_DEFAULT_REGION=REGION)
    os.environ.update(MINISTACK_REGION=REGION, BIND_HOST=address[0], GATEWAY_PORT=str(address[1]))
    os.environ.update(IOT_MTLS_ENABLED="0", SFTP_ENABLED="0")
    os.environ["TMPDIR"] = tempfile.tempdir = scratch


def serve(listener, then, work=None):
    """MiniStack's own main() without its pid file and signal handlers."""
    with contextlib.suppress(OSError, ValueError):  # Every function instance takes four descriptors.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    subprocess.Popen = Child
    import hypercorn.asyncio
    import hypercorn.config
    from ministack import app

    for module, name, patch in (*PATCHES, *(meter.Meter(work).patches() if work else ())):
        module = importlib.import_module(module)
        setattr(module, name, patch(getattr(module, name)))
    # Not earlier: MiniStack's modules have circular imports, which only one thread at a time may enter.
    threading.Thread(target=then, daemon=True).start()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = 75
    asyncio.run(hypercorn.asyncio.serve(app.app, config, shutdown_trigger=asyncio.Event().wait))


def main():
    args = arguments()
    try:
        found = importlib.metadata.version("aws-sam-translator") and importlib.metadata.version("ministack")
    except importlib.metadata.PackageNotFoundError as error:
        found = f"no {error.name}"
    if found != MINISTACK:
        print(f"MiniStack {MINISTACK} is needed, found {found}: remove .venv, and run `make setup`", file=sys.stderr)
        sys.exit(2)
    # Functions are unpacked and run there. Not in /tmp, which some machines mount without permission to run programs.
    SCRATCH.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="local-aws-", dir=SCRATCH)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, lambda *_: stop(0, scratch))
    answers, errors = (os.fdopen(os.dup(descriptor), "w") for descriptor in (1, 2))

    def fail(error):
        if not isinstance(error, (Failure, OSError)):
            traceback.print_exc()  # goes to the log
        print(f"{Path(__file__).name}: {' '.join(str(error).split())}", file=errors, flush=True)
        stop(1, scratch)

    def watch_stdin():
        for line in sys.stdin:
            try:
                Outage.order(json.loads(line))
            except (ValueError, KeyError, TypeError):  # keep watching for the end of stdin
                print(f"not a request for an outage: {line!r}", file=errors, flush=True)
        stop(0, scratch)

    def bring_up():
        try:
            functions = args.functions or args.template.parent / "target/lambda"
            outputs = deploy(endpoint, args.template, args.stack, dict(args.parameter), functions)
            api_url = f"{endpoint}/_aws/execute-api/{outputs.get('ApiId')}/live"
            ready = {"endpoint": endpoint, "region": REGION, "api_url": api_url, "outputs": outputs, "pid": os.getpid()}
            print(json.dumps(ready), file=answers, flush=True)
        except Exception as error:
            fail(error)

    try:
        log = os.open(args.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((args.bind, args.port))
            listener.listen()  # Now, so that no other program takes the port meanwhile, and early requests wait.
        except (OSError, OverflowError) as error:
            way_out = "stop what listens there, or leave --port out to take a free one"
            raise Failure(f"port {args.port} of {args.bind} cannot be used: {error}: {way_out}") from error
        endpoint = "http://{}:{}".format(*listener.getsockname())
        set_environment(endpoint, listener.getsockname(), scratch)
        if not args.no_stdin_watch:
            threading.Thread(target=watch_stdin, daemon=True).start()
        serve(listener, bring_up, args.work)
    except Exception as error:
        fail(error)


if __name__ == "__main__":
    main()
