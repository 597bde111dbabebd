"""The launcher's patches, compared with AWS's documentation. The functions here are Python scripts that use the Lambda
Runtime API and do what the event says."""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from pathlib import Path
from unittest import mock

LAUNCHER = Path(__file__).with_name("local_aws.py")
RETRY_BASE = 0.1  # seconds before the first retry; the second waits twice as long
EXPRESS_SECONDS = 1  # that an execution may take

BOOTSTRAP = """
import http.client, json, os, time

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND)


def call(method, path, body=None):
    api.request(method, "/2018-06-01/runtime/invocation/" + path, body)
    response = api.getresponse()
    return response.headers, response.read()


def failures_so_far(order):
    with open(os.environ["SEEN"] + order["id"], "ab") as file:
        file.write(b".")
        return file.tell() - 1


def change_visibility(record, seconds):
    aws = http.client.HTTPConnection(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
    headers = {"X-Amz-Target": "AmazonSQS.ChangeMessageVisibility", "Content-Type": "application/x-amz-json-1.0"}
    queue = "http://localhost/000000000000/" + record["eventSourceARN"].split(":")[-1]
    change = {"QueueUrl": queue, "ReceiptHandle": record["receiptHandle"], "VisibilityTimeout": seconds}
    aws.request("POST", "/", json.dumps(change), headers)
    assert aws.getresponse().status == 200


def run(order):
    time.sleep(order.get("sleep", 0))
    if "exit" in order:
        os._exit(order["exit"])
    if "fail" in order and failures_so_far(order) < order.get("times", 99):
        raise RuntimeError(order["fail"])
    return order.get("answer")


def run_batch(records):
    orders = [json.loads(record["body"]) for record in records]
    if "answer" in orders[0]:
        return orders[0]["answer"]
    for record, order in zip(records, orders):
        if "visibility" in order:
            change_visibility(record, order["visibility"])
    failed = [record for record, order in zip(records, orders) if "fail" in order and failures_so_far(order) < 1]
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in failed]}


while True:
    headers, event = call("GET", "next")
    event, request_id, start = json.loads(event), headers["Lambda-Runtime-Aws-Request-Id"], time.time()
    try:
        first = event.get("Records", [{}])[0]
        if first.get("eventSource") == "aws:sqs":
            answer = run_batch(event["Records"])
        else:
            answer = run(json.loads(first["Sns"]["Message"]) if "Sns" in first else event.get("detail", event))
        path, body = "response", answer
    except RuntimeError as error:
        path, body = "error", {"errorMessage": str(error), "errorType": "Told"}
    name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    line = {"function": name, "pid": os.getpid(), "id": request_id, "event": event, "span": [start, time.time()]}
    line["program"] = os.path.abspath(__file__)
    os.write(seen, json.dumps(line).encode() + b"\\n")
    call("POST", request_id + "/" + path, json.dumps(body))
"""

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Globals:
  Function:
    Runtime: provided.al2023
    Handler: bootstrap
    Environment: { Variables: { SEEN: SEEN_FILE } }
Resources:
  Topic: { Type: AWS::SNS::Topic }
  Bus: { Type: AWS::Events::EventBus, Properties: { Name: bus } }
  Records: { Type: AWS::SQS::Queue, Properties: { QueueName: records } }
  DeadLetters: { Type: AWS::SQS::Queue, Properties: { QueueName: dead-letters } }
  Undelivered: { Type: AWS::SQS::Queue, Properties: { QueueName: undelivered } }
  Inbox: { Type: AWS::SQS::Queue, Properties: { QueueName: inbox } }
  Closed: { Type: AWS::SQS::Queue, Properties: { QueueName: closed } }
  Raw: { Type: AWS::SQS::Queue, Properties: { QueueName: raw } }

  Standard:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: standard
      DeadLetterQueue: { Type: SQS, TargetArn: !GetAtt DeadLetters.Arn }
      EventInvokeConfig: &to-records
        DestinationConfig:
          OnSuccess: { Type: SQS, Destination: !GetAtt Records.Arn }
          OnFailure: { Type: SQS, Destination: !GetAtt Records.Arn }
      Events:
        Rule:
          Type: EventBridgeRule
          Properties: { EventBusName: !Ref Bus, Pattern: { source: [test] } }
  Once:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: code/, FunctionName: once, EventInvokeConfig: { <<: *to-records, MaximumRetryAttempts: 0 } }
  Aging:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: aging
      EventInvokeConfig: { <<: *to-records, MaximumEventAgeInSeconds: 1 }
  Aged:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: aged
      DeadLetterQueue: { Type: SQS, TargetArn: !GetAtt DeadLetters.Arn }
      EventInvokeConfig: { <<: *to-records, MaximumEventAgeInSeconds: 0 }
  Reserved:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: reserved
      ReservedConcurrentExecutions: 1
      EventInvokeConfig: *to-records
  Stopped:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: code/, FunctionName: stopped, EventInvokeConfig: *to-records }
  Passing:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: passing
      EventInvokeConfig:
        DestinationConfig:
          OnSuccess: { Type: Lambda, Destination: !GetAtt Once.Arn }
          OnFailure: { Type: EventBridge, Destination: !GetAtt Bus.Arn }
  Caught:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: { source: [lambda] }
      Targets: [{ Id: records, Arn: !GetAtt Records.Arn }]

  Asked:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: asked
      EventInvokeConfig:
        DestinationConfig:
          OnSuccess: { Type: SNS, Destination: !Ref Topic }
          OnFailure: { Type: SQS, Destination: !GetAtt Records.Arn }
      Events:
        Question:
          Type: SNS
          Properties: { Topic: !Ref Topic, FilterPolicyScope: MessageBody, FilterPolicy: { type: [question] } }
  Counting:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: counting
      Events:
        Answer:
          Type: SQS
          Properties: { Queue: !GetAtt Inbox.Arn, FunctionResponseTypes: [ReportBatchItemFailures] }
  ToInbox:
    Type: AWS::SNS::Subscription
    Properties:
      TopicArn: !Ref Topic
      Protocol: sqs
      Endpoint: !GetAtt Inbox.Arn
      RawMessageDelivery: true
      FilterPolicyScope: MessageBody
      FilterPolicy: { $or: [{ type: [answer] }, { responsePayload: { type: [answer] } }] }

  Deleted:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      FunctionName: deleted
      Events:
        Lost:
          Type: SNS
          Properties: &lost
            Topic: !Ref Topic
            FilterPolicyScope: MessageBody
            FilterPolicy: { type: [lost] }
            RedrivePolicy: { deadLetterTargetArn: !GetAtt Undelivered.Arn }
  NotPermitted:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: code/, FunctionName: not-permitted }
  ToNotPermitted:
    Type: AWS::SNS::Subscription
    Properties: &to-not-permitted
      TopicArn: !Ref Topic
      Protocol: lambda
      Endpoint: !GetAtt NotPermitted.Arn
      FilterPolicyScope: MessageBody
      FilterPolicy: { type: [lost] }
      RedrivePolicy: { deadLetterTargetArn: !GetAtt Undelivered.Arn }
  ToClosed:
    Type: AWS::SNS::Subscription
    Properties: { <<: *to-not-permitted, Protocol: sqs, Endpoint: !GetAtt Closed.Arn }
  ToRaw:
    Type: AWS::SNS::Subscription
    Properties: { <<: *to-not-permitted, Protocol: sqs, Endpoint: !GetAtt Raw.Arn, RawMessageDelivery: true }
  QueuePolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Inbox, !Ref Raw, !Ref Undelivered]
      PolicyDocument:
        Statement:
          - Effect: Allow
            Principal: { Service: sns.amazonaws.com }
            Action: sqs:SendMessage
            Resource: "*"
            Condition: { ArnEquals: { "aws:SourceArn": !Ref Topic } }
Outputs:
  Topic: { Value: !Ref Topic }
"""


def setUpModule():
    global aws
    aws = Aws(SFN_EXPRESS_SECONDS=str(EXPRESS_SECONDS))


class Aws:
    """A local AWS with TEMPLATE deployed, as hostile as these settings make it."""

    def __init__(self, **settings):
        self.folder = Path(tempfile.mkdtemp(prefix="test-local-aws-"))
        unittest.addModuleCleanup(shutil.rmtree, self.folder)
        self.seen_file = self.folder / "seen"
        self.seen_file.touch()
        bootstrap = self.folder / "code" / "bootstrap"
        bootstrap.parent.mkdir()
        # Not the virtual environment's, whose path may contain a space, which would end the path of the interpreter.
        bootstrap.write_text(f"#!{os.path.realpath(sys.executable)} -IS\n{BOOTSTRAP}")
        bootstrap.chmod(0o755)
        template = self.folder / "template.yaml"
        template.write_text(TEMPLATE.replace("SEEN_FILE", str(self.seen_file)))
        self.log = self.folder / "log"
        command = [sys.executable, "-I", "-B", LAUNCHER, "--template", template, "--stack", "test", "--log", self.log]
        command += ["--functions", self.folder]
        settings["LAMBDA_ASYNC_RETRY_BASE_SECONDS"] = str(RETRY_BASE)
        environment = {**os.environ, **settings, "TMPDIR": str(self.folder)}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        unittest.addModuleCleanup(self.stop)
        ready = json.loads(self.process.stdout.readline())
        self.endpoint, self.topic = ready["endpoint"], ready["outputs"]["Topic"]
        names = ("lambda", "events", "sns", "sqs", "stepfunctions", "apigateway")
        self.lambdas, self.events, self.sns, self.sqs, self.states, self.apigateway = self.clients(ready, *names)
        self.received = {}

    def clients(self, ready, *names):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(NO_PROXY="127.0.0.1", AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
        import boto3
        import botocore.config

        # Each request once: refusals are what is tested.
        once = botocore.config.Config(retries={"total_max_attempts": 1})
        given = {"config": once, "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return [boto3.client(name, ready["region"], endpoint_url=ready["endpoint"], **given) for name in names]

    def stop(self):
        workers = {line["pid"] for line in self.seen()}
        programs = {Path(line["program"]) for line in self.seen()}
        self.process.stdin.close()
        code = self.process.wait(10)
        self.process.stdout.close()
        # In TMPDIR running programs may be forbidden.
        left = [path for path in programs if path.exists() or self.folder in path.parents]
        alive = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        assert (code, left, alive) == (0, [], []), (code, left, alive)

    def seen(self, function=None):
        whole, _, _ = self.seen_file.read_text().rpartition("\n")  # The last line may be incomplete.
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if function in (None, line["function"])]

    def counted(self):
        """The messages that reached the function at the end of the chain."""
        return [json.loads(each["body"]) for line in self.seen("counting") for each in line["event"]["Records"]]

    def invoke(self, function, **order):
        order = {"id": str(uuid.uuid4()), **order}
        self.lambdas.invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(order))
        return order

    def machine(self, kind, **states):
        """A state machine of these states, the first one first."""
        definition = json.dumps({"StartAt": next(iter(states)), "States": states})
        name, role = f"machine-{uuid.uuid4()}", "arn:aws:iam::000000000000:role/any"
        made = self.states.create_state_machine(name=name, definition=definition, roleArn=role, type=kind)
        return made["stateMachineArn"]

    def executions(self, machine):
        """Name and status of each."""
        found = self.states.list_executions(stateMachineArn=machine)["executions"]
        return sorted((execution["name"], execution["status"]) for execution in found)

    def publish(self, **message):
        message = {"id": str(uuid.uuid4()), **message}
        attributes = {"trip": {"DataType": "String", "StringValue": "short"}}
        self.sns.publish(TopicArn=self.topic, Message=json.dumps(message), MessageAttributes=attributes)
        return message

    def url(self, queue):
        return self.sqs.get_queue_url(QueueName=queue)["QueueUrl"]

    def arn(self, queue):
        return f"arn:aws:sqs:eu-central-1:000000000000:{queue}"

    def queue(self, **attributes):
        name = f"queue-{uuid.uuid4()}"
        self.sqs.create_queue(QueueName=name, Attributes={key: str(value) for key, value in attributes.items()})
        return name

    def send(self, queue, *orders):
        entries = [{"Id": str(number), "MessageBody": json.dumps(order)} for number, order in enumerate(orders)]
        self.sqs.send_message_batch(QueueUrl=self.url(queue), Entries=entries)

    def feed(self, function, queue):
        """From now on, so that what is in the queue comes in one batch."""
        types = ["ReportBatchItemFailures"]
        source = {"EventSourceArn": self.arn(queue), "FunctionName": function}
        self.lambdas.create_event_source_mapping(**source, FunctionResponseTypes=types)

    def messages(self, queue):
        """All messages ever found in a queue."""
        found = self.received.setdefault(queue, [])
        wanted = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "AttributeNames": ["All"]}
        found += self.sqs.receive_message(QueueUrl=self.url(queue), VisibilityTimeout=600, **wanted).get("Messages", [])
        return found

    def wait_for(self, queue, text, count=1):
        """The messages with this text in the body, once there are so many."""
        return until(lambda: at_least(count, [each for each in self.messages(queue) if text in each["Body"]]))

    def record_of(self, order):
        return json.loads(self.wait_for("records", order["id"])[0]["Body"])

    def attempts_at(self, order):
        return [line for line in self.seen() if order["id"] in json.dumps(line["event"])]


def at_least(count, found):
    return found if len(found) >= count else None


def until(look, seconds=10):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s:\n{aws.log.read_text()[-3000:]}")
        time.sleep(0.01)
    return found


TIMESTAMP = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


class AsynchronousInvocation(unittest.TestCase):
    """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""

    def check_record(self, record, function, order, condition, count, **response):
        attempts = aws.attempts_at(order)
        self.assertEqual(len(attempts), count)
        self.assertLessEqual(len({attempt["id"] for attempt in attempts}), 1)
        self.assertRegex(record["timestamp"], TIMESTAMP)
        context = {
            "requestId": attempts[0]["id"] if attempts else mock.ANY,
            "functionArn": f"arn:aws:lambda:eu-central-1:000000000000:function:{function}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": count,
        }
        fixed = {"version": "1.0", "timestamp": mock.ANY, "requestContext": context, "requestPayload": order}
        self.assertEqual(record, {**fixed, **response})

    def check_failure(self, record, function, order, condition, count, message, kind="Told"):
        context = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
        payload = {"errorMessage": message, "errorType": kind}
        response = {"responseContext": context, "responsePayload": payload}
        self.check_record(record, function, order, condition, count, **response)

    def check_dead_letter(self, order, code, message):
        letter = aws.wait_for("dead-letters", order["id"])[0]
        self.assertEqual(json.loads(letter["Body"]), order)
        attributes = {
            "RequestID": {"DataType": "String", "StringValue": mock.ANY},
            "ErrorCode": {"DataType": "Number", "StringValue": code},
            "ErrorMessage": {"DataType": "String", "StringValue": message},
        }
        self.assertEqual(letter["MessageAttributes"], attributes)

    def test_a_success_is_recorded_with_any_answer(self):
        for answer in (None, 0, "text", [1, {"a": None}], {"type": "reserved"}):
            with self.subTest(answer=answer):
                order = aws.invoke("standard", answer=answer)
                context = {"statusCode": 200, "executedVersion": "$LATEST"}
                response = {"responseContext": context, "responsePayload": answer}
                self.check_record(aws.record_of(order), "standard", order, "Success", 1, **response)

    def test_a_failure_is_tried_three_times_and_recorded_and_is_a_dead_letter(self):
        order = aws.invoke("standard", fail="m" * 2000)
        self.check_failure(aws.record_of(order), "standard", order, "RetriesExhausted", 3, "m" * 2000)
        self.check_dead_letter(order, "200", "m" * 1024)
        first, second, third = (attempt["span"] for attempt in aws.attempts_at(order))
        self.assertGreaterEqual(second[0] - first[1], RETRY_BASE)
        self.assertGreaterEqual(third[0] - second[1], 2 * RETRY_BASE)

    def test_a_retry_can_succeed(self):
        order = aws.invoke("standard", fail="not yet", times=1, answer="now")
        context = {"statusCode": 200, "executedVersion": "$LATEST"}
        response = {"responseContext": context, "responsePayload": "now"}
        self.check_record(aws.record_of(order), "standard", order, "Success", 2, **response)

    def test_no_retries(self):
        order = aws.invoke("once", fail="no")
        self.check_failure(aws.record_of(order), "once", order, "RetriesExhausted", 1, "no")

    def test_a_crash_is_a_failure(self):
        record = aws.record_of(aws.invoke("once", exit=3))
        self.assertEqual(record["requestContext"]["condition"], "RetriesExhausted")
        self.assertEqual(record["responsePayload"]["errorType"], "Runtime.ExitError")

    def test_an_event_is_not_tried_beyond_its_age(self):
        aws.record_of(aws.invoke("aging"))  # Otherwise the cold start would count.
        order = aws.invoke("aging", fail="slow", sleep=0.5)
        self.check_failure(aws.record_of(order), "aging", order, "EventAgeExceeded", 2, "slow")

    def test_an_event_that_is_too_old_at_once_has_no_response(self):
        order = aws.invoke("aged")
        self.check_record(aws.record_of(order), "aged", order, "EventAgeExceeded", 0)
        self.check_dead_letter(order, "429", "Rate Exceeded.")

    def test_a_throttle_is_not_an_attempt(self):
        orders = [aws.invoke("reserved", sleep=0.2) for _ in range(3)]
        for order in orders:
            self.assertEqual(aws.record_of(order)["requestContext"]["approximateInvokeCount"], 1)
        spans = sorted(line["span"] for line in aws.seen("reserved"))
        self.assertTrue(all(before[1] <= after[0] for before, after in zip(spans, spans[1:])), spans)

    def test_a_function_without_concurrency_is_not_tried(self):
        aws.lambdas.put_function_concurrency(FunctionName="stopped", ReservedConcurrentExecutions=0)
        order = aws.invoke("stopped")
        self.check_record(aws.record_of(order), "stopped", order, "ZeroReservedConcurrency", 0)

    def test_few_instances_run_many_events_and_none_waits_for_a_retry(self):
        for order in [aws.invoke("standard", sleep=0.05) for _ in range(30)]:
            self.assertEqual(aws.record_of(order)["requestContext"]["condition"], "Success")
        failing = [aws.invoke("standard", fail="later") for _ in range(20)]
        good = aws.record_of(aws.invoke("standard"))["requestPayload"]
        for order in failing:
            self.assertEqual(aws.record_of(order)["requestContext"]["approximateInvokeCount"], 3)
        # If an instance stayed with an event until its last attempt, 16 of them would have had theirs before this one.
        ended = aws.attempts_at(good)[0]["span"][1]
        self.assertLess(sum(aws.attempts_at(order)[-1]["span"][0] < ended for order in failing), 10)
        self.assertLessEqual(len({line["pid"] for line in aws.seen("standard")}), 8)

    def test_other_destinations(self):
        aws.invoke("passing", answer="done")
        until(lambda: [line for line in aws.seen("once") if line["event"].get("responsePayload") == "done"])
        order = aws.invoke("passing", fail="no")
        event = json.loads(aws.wait_for("records", order["id"])[0]["Body"])
        self.check_failure(event["detail"], "passing", order, "RetriesExhausted", 3, "no")
        self.assertEqual(event["detail-type"], "Lambda Function Invocation Result - Failure")
        self.assertEqual((event["source"], len(event["resources"])), ("lambda", 2))

    def test_a_rule_invokes_asynchronously(self):
        order = {"id": str(uuid.uuid4()), "fail": "no"}
        entry = {"EventBusName": "bus", "Source": "test", "DetailType": "order", "Detail": json.dumps(order)}
        aws.events.put_events(Entries=[entry])
        record = aws.record_of(order)
        self.assertEqual(record["requestPayload"]["detail"], order)
        self.assertEqual(record["requestContext"]["approximateInvokeCount"], 3)


def asks(function, **more):
    """A state that invokes a function with its input."""
    arguments = {"FunctionName": function, "Payload.$": "$"}
    return {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": arguments, "End": True, **more}


class Executions(unittest.TestCase):
    def started(self, machine, name, **order):
        order = {"id": str(uuid.uuid4()), **order}
        aws.states.start_execution(stateMachineArn=machine, name=name, input=json.dumps(order))
        return order

    def test_express_starts_what_has_the_same_name(self):
        """https://docs.aws.amazon.com/step-functions/latest/dg/express-at-least-once-execution.html"""
        machine = aws.machine("EXPRESS", Ask=asks("standard"))
        orders = [self.started(machine, "same", sleep=0.2) for _ in range(3)]
        until(lambda: aws.executions(machine) == [("same", "SUCCEEDED")] * 3)
        first, second, third = (aws.attempts_at(order)[0]["span"] for order in orders)
        self.assertLess(max(first[0], second[0], third[0]), min(first[1], second[1], third[1]), "all at once")
        self.started(machine, "same")
        until(lambda: aws.executions(machine) == [("same", "SUCCEEDED")] * 4)

    def test_standard_does_not(self):
        machine = aws.machine("STANDARD", Ask=asks("standard"))
        self.started(machine, "same")
        until(lambda: aws.executions(machine) == [("same", "SUCCEEDED")])
        with self.assertRaises(aws.states.exceptions.ExecutionAlreadyExists):
            self.started(machine, "same")

    def test_express_is_not_described(self):
        """https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html"""
        machine = aws.machine("EXPRESS", Ask=asks("standard"))
        arn = aws.states.start_execution(stateMachineArn=machine, name="one")["executionArn"]
        self.assertRegex(arn, f"^{machine.replace(':stateMachine:', ':express:')}:one:[0-9a-f-]+$")
        for name in (arn, f"{machine.replace(':stateMachine:', ':execution:')}:one"):
            with self.assertRaises(aws.states.exceptions.ExecutionDoesNotExist):
                aws.states.describe_execution(executionArn=name)

    def test_express_ends_after_its_time_and_does_nothing_more(self):
        """https://docs.aws.amazon.com/step-functions/latest/dg/choosing-workflow-type.html"""
        patient = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 99}]
        caught = [{"ErrorEquals": ["States.ALL"], "Next": "After"}]
        states = {"Ask": asks("standard", Retry=patient, Catch=caught), "After": asks("standard")}
        machines = {kind: aws.machine(kind, **states) for kind in ("EXPRESS", "STANDARD")}
        late = self.started(machines["EXPRESS"], "late", fail="not yet", times=2)
        in_time = self.started(machines["STANDARD"], "late", fail="not yet", times=2)
        until(lambda: aws.executions(machines["EXPRESS"]) == [("late", "TIMED_OUT")])
        until(lambda: aws.executions(machines["STANDARD"]) == [("late", "SUCCEEDED")])
        self.assertEqual((len(aws.attempts_at(late)), len(aws.attempts_at(in_time))), (1, 3))
        self.assertEqual(aws.executions(machines["EXPRESS"]), [("late", "TIMED_OUT")], "and stays so")


class Scarcity(unittest.TestCase):
    """An account with room for two instances, and filters that have not settled."""

    @classmethod
    def setUpClass(cls):
        global aws
        cls.addClassCleanup(globals().__setitem__, "aws", aws)
        aws = Aws(LAMBDA_ACCOUNT_CONCURRENCY="2", SNS_UNSETTLED_FILTERS="1")

    def ask(self, **order):
        return aws.lambdas.invoke(FunctionName="once", Payload=json.dumps({"id": str(uuid.uuid4()), **order}))

    def occupied(self, seconds):
        """Two functions work for this long. Returns the error that the next one gets."""
        for _ in range(2):
            aws.invoke("standard", sleep=seconds)
        errors = aws.lambdas.exceptions

        def refused():
            try:
                self.ask()
            except errors.TooManyRequestsException as refusal:
                return refusal.response

        return until(refused)

    def test_what_waits_for_an_answer_is_refused(self):
        refusal = self.occupied(1)
        status = refusal["ResponseMetadata"]["HTTPStatusCode"]
        self.assertEqual((status, refusal["Reason"]), (429, "ConcurrentInvocationLimitExceeded"))

    def test_a_task_fails_with_an_error_of_its_own(self):
        """https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html"""
        retry = [{"ErrorEquals": ["Lambda.TooManyRequestsException"], "IntervalSeconds": 1, "BackoffRate": 1}]
        hasty, patient = (aws.machine("STANDARD", Ask=asks("once", **more)) for more in ({}, {"Retry": retry}))
        self.occupied(1)
        arn = aws.states.start_execution(stateMachineArn=hasty, name="one")["executionArn"]
        aws.states.start_execution(stateMachineArn=patient, name="one")
        until(lambda: aws.executions(hasty) == [("one", "FAILED")])
        self.assertEqual(aws.states.describe_execution(executionArn=arn)["error"], "Lambda.TooManyRequestsException")
        until(lambda: aws.executions(patient) == [("one", "SUCCEEDED")])

    def test_what_nobody_waits_for_comes_later(self):
        """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html"""
        self.occupied(0.5)
        order = aws.invoke("once")
        self.assertEqual(aws.record_of(order)["requestContext"]["approximateInvokeCount"], 1)

    def test_a_mapping_keeps_its_messages_and_tries_again(self):
        """https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html"""
        queue = aws.queue(VisibilityTimeout=30)
        self.occupied(1)
        order = {"id": str(uuid.uuid4())}
        aws.send(queue, order)
        aws.feed("counting", queue)
        [attempt] = until(lambda: aws.attempts_at(order))
        self.assertEqual(attempt["event"]["Records"][0]["attributes"]["ApproximateReceiveCount"], "1")
        throttled = [line for line in aws.log.read_text().splitlines() if "Throttled: counting" in line]
        self.assertTrue(throttled, "it met no throttle")

    def test_a_filter_that_has_not_settled_lets_everything_through(self):
        """https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html"""
        topic, queue = aws.sns.create_topic(Name="unsettled")["TopicArn"], aws.queue()
        statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": aws.arn(queue)}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        aws.sqs.set_queue_attributes(QueueUrl=aws.url(queue), Attributes={"Policy": policy})
        attributes = {"RawMessageDelivery": "true", "FilterPolicyScope": "MessageBody"}
        attributes["FilterPolicy"] = json.dumps({"type": ["a"]})
        aws.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=aws.arn(queue), Attributes=attributes)
        for message in ('{"type": "b"}', "text"):
            aws.sns.publish(TopicArn=topic, Message=message)
            aws.wait_for(queue, message)


class Subscriptions(unittest.TestCase):
    def test_a_function_gets_what_sns_sends_and_is_tried_again(self):
        message = aws.publish(type="question", fail="no")
        record = aws.record_of(message)
        self.assertEqual(record["requestContext"]["approximateInvokeCount"], 3)
        [sent] = record["requestPayload"]["Records"]
        sns = {
            "Type": "Notification",
            "MessageId": mock.ANY,
            "TopicArn": aws.topic,
            "Subject": None,
            "Message": json.dumps(message),
            "Timestamp": mock.ANY,
            "SignatureVersion": "1",
            "Signature": mock.ANY,
            "SigningCertUrl": mock.ANY,
            "UnsubscribeUrl": mock.ANY,
            "MessageAttributes": {"trip": {"Type": "String", "Value": "short"}},
        }
        source = {"EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": mock.ANY}
        self.assertEqual(sent, {**source, "Sns": sns})
        self.assertRegex(sent["Sns"]["Timestamp"], TIMESTAMP)
        self.assertTrue(sent["EventSubscriptionArn"].startswith(aws.topic + ":"))

    def test_a_filter_looks_into_the_message(self):
        for other in ({"type": "other"}, {"type": None}, {}, {"type": ["other"], "responsePayload": {"type": "other"}}):
            aws.publish(kind="filtered", **other)
        for payload in (None, "answer", ["answer"], {}, {"type": None}, {"type": {"type": "answer"}}):
            aws.publish(kind="filtered", responsePayload=payload)
        wanted = [aws.publish(kind="filtered", type="answer", responsePayload=None)["id"]]
        wanted += [aws.publish(kind="filtered", responsePayload={"type": "answer"})["id"]]
        found = until(lambda: at_least(2, [body["id"] for body in aws.counted() if body.get("kind") == "filtered"]))
        self.assertEqual(sorted(found), sorted(wanted))

    def test_what_cannot_be_delivered_goes_to_the_dead_letter_queue(self):
        aws.lambdas.delete_function(FunctionName="deleted")
        aws.sqs.delete_queue(QueueUrl=aws.url("raw"))
        text = json.dumps(aws.publish(type="lost"))
        raw = [each for each in aws.wait_for("undelivered", "lost", 4) if each["Body"] == text]
        envelopes = [json.loads(each["Body"]) for each in aws.wait_for("undelivered", "Notification", 3)]
        attributes = {"trip": {"DataType": "String", "StringValue": "short"}}
        self.assertEqual([each["MessageAttributes"] for each in raw], [attributes])
        self.assertEqual([each["Message"] for each in envelopes], [text] * 3)


class Queues(unittest.TestCase):
    def left(self, queue):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = aws.sqs.get_queue_attributes(QueueUrl=aws.url(queue), AttributeNames=names)["Attributes"]
        return sum(int(number) for number in found.values())

    def with_dead_letters(self, receives, visibility=1):
        dead_letters = aws.queue()
        policy = json.dumps({"deadLetterTargetArn": aws.arn(dead_letters), "maxReceiveCount": receives})
        return aws.queue(VisibilityTimeout=visibility, RedrivePolicy=policy), dead_letters

    def arrived(self, sent):
        """The messages that went through topic, function, topic and queue to another function."""
        requests = [body["requestPayload"]["Records"][0] for body in aws.counted() if "version" in body]
        orders = [json.loads(request["Sns"]["Message"]) for request in requests]
        return at_least(len(sent), [order["id"] for order in orders if order["id"] in sent])

    def test_a_chain_loses_nothing(self):
        sent = [aws.publish(type="question", answer={"type": "answer"})["id"] for _ in range(60)]
        self.assertEqual(sorted(until(lambda: self.arrived(sent))), sorted(sent))

    def test_a_chain_waits_for_nothing(self):
        """Without the times that MiniStack sleeps or polls, which are at least 50 ms."""
        times = []
        for _ in range(10):
            start = time.monotonic()
            sent = aws.publish(type="question", answer={"type": "answer"})["id"]
            until(lambda: self.arrived([sent]))
            times.append(time.monotonic() - start)
        self.assertLess(min(times), 0.05, times)

    def test_a_queue_loses_nothing_that_is_sent_while_others_are_received_and_deleted(self):
        """In this process, where threads can be made to alternate often enough."""
        import local_aws
        from ministack.services import sqs

        for _, name, patch in [row for row in local_aws.PATCHES if row[0] == sqs.__name__]:
            setattr(sqs, name, patch(getattr(sqs, name)))
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        url = sqs._act_create_queue({"QueueName": "queue"}, "")["QueueUrl"]
        queue, received = sqs._queues[url], []
        policy = {"deadLetterTargetArn": queue["attributes"]["QueueArn"], "maxReceiveCount": 9}
        queue["attributes"]["RedrivePolicy"] = json.dumps(policy)

        def send():
            for number in range(1500):
                sqs._act_send_message({"MessageBody": str(number)}, url)

        def receive():
            while queue["messages"] or not all(each.done() for each in sending):
                batch = sqs._receive_messages_for_esm(url, 10)
                received.extend(batch)
                sqs._delete_messages_for_esm(url, {message["receipt_handle"] for message in batch})

        def look():
            while not all(each.done() for each in sending):
                sqs._dlq_sweep(queue)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            sending = [pool.submit(send), pool.submit(send)]
            pool.submit(look)
            pool.submit(receive).result()
        self.assertEqual(len(received), 3000)

    def test_an_answer_that_is_not_valid_fails_the_batch(self):
        """https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html"""
        items = [{"itemIdentifier": ""}, {"itemIdentifier": None}, {"itemIdentifier": "unknown"}, {"foo": 1}, 1]
        failures = ["text", [1], 1, {"batchItemFailures": 1}, *({"batchItemFailures": [item]} for item in items)]
        successes = [None, "", [], {}, {"foo": 1}, {"batchItemFailures": None}, {"batchItemFailures": []}]
        queues = []
        for answer in failures + successes:
            queue, dead_letters = self.with_dead_letters(receives=1)
            aws.send(queue, {"answer": answer, "id": "first"}, {"answer": answer, "id": "second"})
            aws.feed("counting", queue)
            queues.append((answer, queue, dead_letters))
        for answer, queue, dead_letters in queues:
            with self.subTest(answer=answer):
                until(lambda: self.left(queue) == 0)
                self.assertEqual(self.left(dead_letters), 2 if answer in failures else 0)

    def test_a_failed_message_alone_comes_again(self):
        queue, dead_letters = self.with_dead_letters(receives=2)
        orders = [{"id": str(uuid.uuid4())} for _ in range(3)]
        orders[1]["fail"] = "once"
        aws.send(queue, *orders)
        aws.feed("counting", queue)
        first, second = until(lambda: at_least(2, aws.attempts_at(orders[1])))
        self.assertEqual([json.loads(each["body"]) for each in first["event"]["Records"]], orders)
        self.assertEqual([json.loads(each["body"]) for each in second["event"]["Records"]], [orders[1]])
        attributes = second["event"]["Records"][0]["attributes"]
        self.assertEqual(attributes["ApproximateReceiveCount"], "2")
        self.assertGreaterEqual(second["span"][0] - int(attributes["ApproximateFirstReceiveTimestamp"]) / 1000, 1)
        until(lambda: self.left(queue) == 0)
        self.assertEqual(self.left(dead_letters), 0)

    def test_a_function_says_when_a_message_comes_again(self):
        queue, elsewhere = aws.queue(VisibilityTimeout=30), aws.queue()
        order = {"id": str(uuid.uuid4()), "fail": "once", "visibility": 1}
        aws.send(queue, order)
        aws.feed("counting", queue)
        [first] = until(lambda: aws.attempts_at(order))
        until(lambda: time.time() > first["span"][1] + 0.8)
        aws.send(elsewhere, {})  # After a message, MiniStack would wait for a second before it checks again.
        _, second = until(lambda: at_least(2, aws.attempts_at(order)))
        self.assertTrue(0.9 < second["span"][0] - first["span"][1] < 1.6, (first, second))
        until(lambda: self.left(queue) == 0)

    def fill(self, queue, dead_letters, *bodies):
        """Through the queue into its dead-letter queue."""
        attributes = {"trip": {"DataType": "String", "StringValue": "short"}}
        for body in bodies:
            aws.sqs.send_message(QueueUrl=aws.url(queue), MessageBody=body, MessageAttributes=attributes)
            aws.sqs.receive_message(QueueUrl=aws.url(queue), VisibilityTimeout=0)
        until(lambda: aws.sqs.receive_message(QueueUrl=aws.url(queue)) and self.left(dead_letters) == len(bodies))

    def test_messages_move_back_to_where_they_came_from(self):
        queue, dead_letters = self.with_dead_letters(receives=1)
        self.fill(queue, dead_letters, "first", "second", "in flight")
        source = aws.arn(dead_letters)
        in_flight = aws.sqs.receive_message(QueueUrl=aws.url(dead_letters), VisibilityTimeout=600)["Messages"][0]
        self.assertIn("TaskHandle", aws.sqs.start_message_move_task(SourceArn=source))
        [task] = aws.sqs.list_message_move_tasks(SourceArn=source)["Results"]
        counts = {"ApproximateNumberOfMessagesMoved": 2, "ApproximateNumberOfMessagesToMove": 2}
        self.assertEqual(task, {"Status": "COMPLETED", "SourceArn": source, "StartedTimestamp": mock.ANY, **counts})
        moved = until(lambda: at_least(2, aws.messages(queue)))
        self.assertEqual({each["Body"] for each in moved} | {in_flight["Body"]}, {"first", "second", "in flight"})
        self.assertEqual({each["Attributes"]["ApproximateReceiveCount"] for each in moved}, {"1"})
        self.assertEqual([each["MessageAttributes"]["trip"]["StringValue"] for each in moved], ["short"] * 2)
        self.assertEqual(self.left(dead_letters), 1)

    def test_messages_that_came_from_nowhere_move_only_to_a_named_queue(self):
        _, dead_letters = self.with_dead_letters(receives=1)
        source, destination = aws.arn(dead_letters), aws.queue()
        aws.send(dead_letters, "sent by a topic")
        aws.sqs.start_message_move_task(SourceArn=source)
        [task] = aws.sqs.list_message_move_tasks(SourceArn=source)["Results"]
        self.assertEqual((task["Status"], task["FailureReason"]), ("FAILED", "CouldNotDetermineMessageSource"))
        aws.sqs.start_message_move_task(SourceArn=source, DestinationArn=aws.arn(destination))
        latest, _ = aws.sqs.list_message_move_tasks(SourceArn=source, MaxResults=10)["Results"]
        self.assertEqual((latest["Status"], latest["DestinationArn"]), ("COMPLETED", aws.arn(destination)))
        self.assertEqual((self.left(dead_letters), self.left(destination)), (0, 1))

    def test_what_a_move_task_refuses(self):
        queue, dead_letters = self.with_dead_letters(receives=1)
        [source] = aws.sqs.list_dead_letter_source_queues(QueueUrl=aws.url(dead_letters))["queueUrls"]
        self.assertEqual(source, aws.url(queue))
        errors, start = aws.sqs.exceptions, aws.sqs.start_message_move_task
        with self.assertRaisesRegex(errors.ClientError, "must be configured as a Dead Letter Queue"):
            start(SourceArn=aws.arn(queue))
        with self.assertRaisesRegex(errors.ClientError, "cannot be the same"):
            start(SourceArn=aws.arn(dead_letters), DestinationArn=aws.arn(dead_letters))
        with self.assertRaises(errors.ResourceNotFoundException):
            start(SourceArn=aws.arn("missing"))
        with self.assertRaises(errors.ResourceNotFoundException):
            start(SourceArn=aws.arn(dead_letters), DestinationArn=aws.arn("missing"))
        with self.assertRaises(errors.ResourceNotFoundException):
            aws.sqs.cancel_message_move_task(TaskHandle=start(SourceArn=aws.arn(dead_letters))["TaskHandle"])


class Launcher(unittest.TestCase):
    def test_another_ministack_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            metadata = Path(folder) / "ministack-9.9.9.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text("Metadata-Version: 2.1\nName: ministack\nVersion: 9.9.9\n")
            command = [sys.executable, "-B", LAUNCHER, "--template", "template.yaml", "--stack", "test"]
            environment = {**os.environ, "PYTHONPATH": folder}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^MiniStack \S+ is needed, found 9\.9\.9: remove \.venv, and run `make setup`\n$")


class Deployment(unittest.TestCase):
    def check(self, *args):
        environment = {**os.environ, "AWS_ENDPOINT_URL": aws.endpoint, "AWS_DEFAULT_REGION": "eu-central-1"}
        environment.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        command = [sys.executable, "-I", "-B", LAUNCHER.with_name("check_deployment.py"), *args]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stderr

    def set_role(self, arn):
        change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}
        aws.apigateway.update_account(patchOperations=[change])

    def test_prod_is_refused_while_api_gateway_has_no_role_for_access_logs(self):
        code, said = self.check("--config-env", "prod")
        self.assertEqual(code, 1)
        self.assertIn("AccessLogs=ON_AND_SET_UP_ACCOUNT", said)
        for without in (["staging"], ["prod", "--parameter-overrides", "DeletionProtection=ON"]):
            self.assertEqual(self.check("--config-env", *without), (0, ""))
        self.set_role("arn:aws:iam::000000000000:role/logs")
        self.addCleanup(self.set_role, "")
        self.assertEqual(self.check("--config-env", "prod"), (0, ""))

    def test_a_name_is_refused_that_makes_a_functions_name_too_long(self):
        self.assertEqual(self.check("--stack-name", "x" * 53, "--config-env", "staging"), (0, ""))
        code, said = self.check("--stack-name", "x" * 54, "--config-env", "staging")
        self.assertEqual(code, 1)
        self.assertIn("has 54 characters, of 53 at most: " + "x" * 54 + "-reconciler is", said)


if __name__ == "__main__":
    unittest.main()
