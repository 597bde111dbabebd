"""Records each piece of work that the local AWS does, so that it can be counted afterwards.

One line of JSON each, with the ids of the bookings that it names:

    {"kind": "request", "service", "action", "by", "status", "reads", "writes", "tables"}  from a program to AWS
    {"kind": "api", "status"}                   a request to API Gateway
    {"kind": "invocation", "name", "logged", "failed"}
    {"kind": "transition", "name"}              a state of a state machine that was entered, or tried again
    {"kind": "execution", "status"}
    {"kind": "publish", "name", "scanned"}      to a topic; bytes that all subscriptions' filters on the body inspect
    {"kind": "delivery", "name"}                from a topic, to "sqs" or "lambda"
    {"kind": "send" | "receive" | "delete"}     on a queue, by AWS itself; those by programs are requests

`at` is when it began (seconds since 1970), `took` how many seconds it took; `sent` and `received` are bytes.
Reads and writes are DynamoDB's capacity units, as MiniStack computes them: each request asks for them.
"""

import contextvars
import functools
import importlib
import json
import re
import threading
import time

EXECUTION = contextvars.ContextVar("the name of the execution", default="")
# MiniStack executes these states by one function each. A Map is one of them; the states in it are recorded separately.
STATES = ("task", "choice", "pass", "wait", "parallel", "map")
ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def text_of(payload):
    if isinstance(payload, (bytes, bytearray)):
        return payload.decode(errors="replace")
    if isinstance(payload, str):
        return payload
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, default=str)


class Meter:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)
        self.writing = threading.Lock()

    def note(self, kind, about, started=None, **figures):
        text = text_of(about)
        ended = time.time()
        line = {"kind": kind, "at": started or ended, "took": ended - (started or ended), "sent": len(text.encode())}
        line["bookings"] = sorted(set(ID.findall(text)))
        with self.writing:
            self.file.write(json.dumps({**line, **figures}) + "\n")

    # ------------------------------------------------------------ requests from programs to AWS
    def dispatch(self, original):
        async def dispatch(method, path, headers, body, *rest):
            started = time.time()
            status, answer_headers, answer = await original(method, path, headers, body, *rest)
            target = headers.get("x-amz-target", "")
            action = re.search(r"(?:^|&)Action=(\w+)", body.decode(errors="replace")) if body and not target else None
            if target or action:
                service, _, name = target.partition(".") if target else ("SNS", ".", action[1])
                figures = answer_headers.pop("x-capacity", {})
                by = "harmony" if "app/harmony" in headers.get("user-agent", "") else "function"
                about = {"service": service.split("_")[0], "action": name, "by": by, "status": status}
                self.note("request", body, started, received=len(answer or b""), **about, **figures)
            return status, answer_headers, answer

        return dispatch

    def dynamodb(self, original):
        """Requests the consumed capacity and removes it from the answer. Refused requests are billed too: at least one
        unit per item of the request, two in a transaction.
        """

        async def handle(method, path, headers, body, query):
            request = json.loads(body or b"{}")
            action = headers.get("x-amz-target", "").split(".")[-1]
            if action in ("DescribeTable", "UpdateTimeToLive") or not action:
                return await original(method, path, headers, body, query)
            asked = {**request, "ReturnConsumedCapacity": "TOTAL"}
            status, answer_headers, answer = await original(method, path, headers, json.dumps(asked).encode(), query)
            reads = action in ("GetItem", "Query", "Scan", "BatchGetItem", "TransactGetItems")
            tables = {}
            if status == 200:
                told = json.loads(answer)
                consumed = told.pop("ConsumedCapacity", [])
                answer = json.dumps(told).encode()
                for each in consumed if isinstance(consumed, list) else [consumed]:
                    tables[each["TableName"]] = tables.get(each["TableName"], 0) + each["CapacityUnits"]
            else:
                for item in request.get("TransactItems", [{"": request}]):
                    name = next(iter(item.values())).get("TableName", "")
                    tables[name] = tables.get(name, 0) + (2 if "TransactItems" in request else 1)
            units = sum(tables.values())
            capacity = {"reads": units if reads else 0, "writes": 0 if reads else units, "tables": tables}
            return status, {**answer_headers, "x-capacity": capacity}, answer

        return handle

    def api(self, original):
        async def handle(host, path, method, headers, body, *rest, **named):
            started = time.time()
            answer = await original(host, path, method, headers, body, *rest, **named)
            if answer is not None:
                # The request does not contain its booking's id yet; the answer and the path do.
                received = answer[2] or b""
                about = path.encode() + b" " + bytes(received)
                self.note("api", about, started, sent=len(body or b""), received=len(received), status=answer[0])
            return answer

        return handle

    # ------------------------------------------------------------ work by AWS itself
    def invocation(self, original):
        @functools.wraps(original)
        def execute(func, config, event, *rest):
            started = time.time()
            result = original(func, config, event, *rest)
            body = text_of(result.get("body"))
            logged = len((result.get("log") or "").encode())
            figures = {"received": len(body.encode()), "logged": logged, "failed": bool(result.get("error"))}
            # The id of a new booking is not in the event but in the answer.
            about = text_of(event)
            ids = sorted(set(ID.findall(about)) or set(ID.findall(body)))
            self.note("invocation", about, started, name=config["FunctionName"], **figures, bookings=ids)
            return result

        return execute

    def state(self, original):
        def execute(state, state_input, *rest):
            context = rest[-1]
            EXECUTION.set(context["Execution"]["Name"])
            self.note("transition", context["Execution"]["Name"], name=context["State"]["Name"])
            return original(state, state_input, *rest)

        return execute

    def retrier(self, original):
        """A retry counts as a transition."""

        def find(retriers, error, counts):
            retrier, index = original(retriers, error, counts)
            if retrier is not None:
                self.note("transition", EXECUTION.get(), name="Retry")
            return retrier, index

        return find

    def event(self, original):
        def add(execution, kind, details=None):
            if kind in ("SucceedStateEntered", "FailStateEntered"):  # the others are recorded where they are executed
                self.note("transition", execution["name"], name=details["stateEnteredEventDetails"]["name"])
            if kind in ("ExecutionSucceeded", "ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted"):
                self.note("execution", execution["name"], execution["startedAt"], status=kind)
            return original(execution, kind, details)

        return add

    def execution(self, original):
        def run(arn, *rest):
            service("stepfunctions")._executions[arn]["startedAt"] = time.time()
            return original(arn, *rest)

        return run

    def publish(self, original):
        def publish(topic, message_id, message, *rest, **named):
            subscriptions = (service("sns")._topics.get(topic) or {}).get("subscriptions", [])
            by_body = [each for each in subscriptions if each["attributes"].get("FilterPolicyScope") == "MessageBody"]
            scanned = len(by_body) * len(message.encode())
            self.note("publish", message, name=topic.split(":")[-1], scanned=scanned)
            return original(topic, message_id, message, *rest, **named)

        return publish

    def delivery(self, to):
        def patch(original):
            def deliver(endpoint, envelope, *rest, **named):
                self.note("delivery", envelope, name=to)
                return original(endpoint, envelope, *rest, **named)

            return deliver

        return patch

    def send(self, original):
        def send(data, url):
            answer = original(data, url)
            self.note("send", data.get("MessageBody", ""), name=url.split("/")[-1])
            return answer

        return send

    def receive(self, original):
        def receive(url, most):
            messages = original(url, most)
            if messages:  # a mapping polls all the time, and at another rate on AWS
                self.note("receive", [message["body"] for message in messages], name=url.split("/")[-1])
            return messages

        return receive

    def delete(self, original):
        def delete(url, handles):
            if handles:
                held = service("sqs")._get_q(url)["messages"]
                bodies = [each["body"] for each in held if each.get("receipt_handle") in handles]
                self.note("delete", bodies, name=url.split("/")[-1])
            return original(url, handles)

        return delete

    def patches(self):
        """Applied on top of the patches that make MiniStack behave like AWS."""
        states = "ministack.services.stepfunctions"
        return (
            ("ministack.app", "_dispatch_service_request", self.dispatch),
            ("ministack.app", "_handle_execute_api_request", self.api),
            ("ministack.services.dynamodb", "handle_request", self.dynamodb),
            ("ministack.services.lambda_svc", "_execute_function_dispatch", self.invocation),
            ("ministack.services.sns", "_deliver_to_lambda", self.delivery("lambda")),
            ("ministack.services.sns", "_deliver_to_sqs", self.delivery("sqs")),
            ("ministack.services.sns", "_fanout", self.publish),
            ("ministack.services.sqs", "_act_send_message", self.send),
            ("ministack.services.sqs", "_delete_messages_for_esm", self.delete),
            ("ministack.services.sqs", "_receive_messages_for_esm", self.receive),
            (states, "_add_event", self.event),
            (states, "_find_matching_retrier", self.retrier),
            (states, "_run_execution", self.execution),
            *((states, f"_execute_{kind}", self.state) for kind in STATES),
        )


def service(name):
    return importlib.import_module(f"ministack.services.{name}")
