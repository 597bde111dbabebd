"""The deployed template and its state machine. In place of the functions there are Python scripts, which answer what they
are told in the part that they are asked for."""

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from pathlib import Path

LAUNCHER = Path(__file__).with_name("local_aws.py")
TEMPLATE = Path(__file__).resolve().parents[3] / "template.yaml"
STACK = "rows"
UNKNOWN = "lounge"  # what a function sells of which the template knows nothing

PROGRAM = """
import http.client, json, os

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
seen = os.open(SEEN, os.O_WRONLY | os.O_APPEND)
MONEY = {"amount": 5, "currency": "EUR"}


def call(method, path, body=None):
    api.request(method, "/2018-06-01/runtime/invocation/" + path, body)
    response = api.getresponse()
    return response.headers, response.read()


def answer(command):
    reference = command.get("payment", {}).get("reference")
    rejection = {"code": "no", "message": "said no"}
    action = command["step"].split(".")[1]
    told = command.get("part", {}).get(action)
    if told and told != "rejected":
        raise RuntimeError(told)
    return {
        "reserve": ("rejected", rejection) if told else ("reserved", {"price": MONEY}),
        "cancel": ("cancelled", {"released": True}),
        "charge": {
            "declined": ("declined", rejection),
            "aborted": ("aborted", {"reason": {"step": "car.reserve", "code": "no", "detail": "by another"}}),
            "aborted for nothing": ("aborted", {"reason": None}),
        }.get(reference, ("charged", {"amount": MONEY, "charge_id": "1"})),
        "abort": ("aborted", {"reason": command.get("reason")}),
        "confirm": ("confirmed", {"total": command.get("total")}),
        "fail": ("failed", {"reason": command.get("reason")}),
        "park": ("parked", {"reason": command.get("reason")}),
    }[action]


while True:
    headers, event = call("GET", "next")
    event, request_id = json.loads(event), headers["Lambda-Runtime-Aws-Request-Id"]
    line = {"function": os.environ["AWS_LAMBDA_FUNCTION_NAME"], "event": event}
    os.write(seen, json.dumps(line).encode() + b"\\n")
    try:
        body = None
        if "step" in event:
            outcome, detail = answer(event)
            body = {"booking_id": event["booking_id"], "step": event["step"], "outcome": outcome, "detail": detail}
        call("POST", request_id + "/response", json.dumps(body))
    except RuntimeError as error:
        call("POST", request_id + "/error", json.dumps({"errorMessage": "told to", "errorType": str(error)}))
"""


def setUpModule():
    global aws
    aws = Aws()


class Aws:
    """A local AWS with the template deployed."""

    def __init__(self, **settings):
        temporary = tempfile.TemporaryDirectory(prefix="test-template-")
        unittest.addModuleCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        self.seen_file, self.work_file, log = (folder / name for name in ("seen", "work", "log"))
        self.seen_file.touch()
        names = [each.name for each in (TEMPLATE.parent / "functions").iterdir() if each.is_dir()]
        for name in names:
            program = folder / "functions" / name / "bootstrap"
            program.parent.mkdir(parents=True)
            source = f"#!{os.path.realpath(sys.executable)} -IS\nSEEN = {str(self.seen_file)!r}\n{PROGRAM}"
            program.write_text(source)
            program.chmod(0o755)
        command = [sys.executable, "-I", "-B", LAUNCHER, "--template", TEMPLATE, "--stack", STACK, "--log", log]
        command += ["--functions", folder / "functions", "--work", self.work_file, "--parameter", "PatienceSeconds=0"]
        environment = {**os.environ, "SFN_WAIT_SCALE": "0.01", **settings}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        unittest.addModuleCleanup(self.stop)
        ready = json.loads(self.process.stdout.readline())
        self.outputs = ready["outputs"]
        import boto3

        given = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "endpoint_url": ready["endpoint"]}
        services = ("lambda", "sns", "sqs", "stepfunctions")
        self.lambdas, self.sns, self.sqs, self.states = (boto3.client(it, ready["region"], **given) for it in services)
        functions = self.lambdas.list_functions()["Functions"]
        sellers = [each for each in functions if "STOCK_TABLE" in each["Environment"]["Variables"]]
        self.sellers = sorted(each["FunctionName"].removeprefix(f"{STACK}-") for each in sellers)
        assert len(self.sellers) >= 3, functions
        self.sell(UNKNOWN, folder / "functions" / self.sellers[0])
        self.parts = [*self.sellers, UNKNOWN]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def sell(self, part, folder):
        """A seller of which the template knows nothing."""
        import local_aws

        role = self.lambdas.get_function_configuration(FunctionName=f"{STACK}-booking")["Role"]
        code = {"Code": {"ZipFile": local_aws.zipped(folder)}, "Handler": "bootstrap", "Runtime": "provided.al2023"}
        self.lambdas.create_function(FunctionName=f"{STACK}-{part}", Role=role, **code)

    def book(self, parts, reference="paid"):
        """Runs an execution to its end. Returns its status, its output, what functions were asked, and the transitions."""
        booking_id = uuid.uuid4().hex
        plan = {"booking_id": booking_id, "parts": parts, "payment": {"reference": reference}}
        machine = self.outputs["StateMachineArn"]
        started = self.states.start_execution(stateMachineArn=machine, name=booking_id, input=json.dumps(plan))

        def ended():
            found = self.states.describe_execution(executionArn=started["executionArn"])
            return found["status"] != "RUNNING" and found

        execution = until(ended)
        asked = [line for line in self.seen() if line["event"].get("booking_id") == booking_id]
        work = [json.loads(line) for line in self.work_file.read_text().splitlines()]
        transitions = [line["name"] for line in work if line["kind"] == "transition" and booking_id in line["bookings"]]
        return execution, asked, transitions

    def seen(self):
        whole, _, _ = self.seen_file.read_text().rpartition("\n")  # the last line may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def parked(self):
        url = self.outputs["ParkedQueueUrl"]
        [message] = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return json.loads(message["Body"])


def until(look, seconds=20):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.01)
    return found


PRICE = {"amount": 5, "currency": "EUR"}


def plan(count, **told):
    """A plan's parts: each with what nobody but its seller knows, and what that one is told to do."""
    return {name: {"of": name, "list": [1], "empty": {}, "null": None, **told.get(name, {})} for name in aws.parts[:count]}


def commands(asked, action):
    """By participant, what it was asked to do."""
    found = [line for line in asked if line["event"]["step"].split(".")[1] == action]
    by_participant = {line["event"]["step"].split(".")[0]: line["event"] for line in found}
    assert all(line["function"] == f"{STACK}-{line['event']['step'].split('.')[0]}" for line in found), found
    return by_participant


class Executions(unittest.TestCase):
    def check_commands(self, asked, action, parts):
        for name, command in commands(asked, action).items():
            own = {"step": f"{name}.{action}", "booking_id": command["booking_id"], "part": parts[name]}
            self.assertEqual(command, own)
        self.assertEqual(set(commands(asked, action)), set(parts))

    def test_any_number_of_parts_is_reserved_charged_and_confirmed(self):
        for count in range(1, len(aws.parts) + 1):
            with self.subTest(parts=count):
                parts = plan(count)
                execution, asked, transitions = aws.book(parts)
                self.assertEqual(execution["status"], "SUCCEEDED")
                self.assertEqual(json.loads(execution["output"])["outcome"], "confirmed")
                self.check_commands(asked, "reserve", parts)
                charge = commands(asked, "charge")["payment"]
                self.assertEqual(charge["payment"], {"reference": "paid"})
                self.assertEqual((charge["parts"], charge["prices"]), (list(parts), {name: PRICE for name in parts}))
                self.assertEqual(commands(asked, "confirm")["booking"]["total"], PRICE)
                self.assertEqual(len(asked), count + 2)
                # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-transitions.html
                self.assertEqual(len(transitions), 5 + count, transitions)
                self.assertEqual(transitions.count("Reserve"), 1)

    def test_a_rejection_cancels_every_part(self):
        for count in range(1, len(aws.parts) + 1):
            for name in aws.parts[:count]:
                with self.subTest(parts=count, rejected=name):
                    parts = plan(count, **{name: {"reserve": "rejected"}})
                    execution, asked, transitions = aws.book(parts)
                    reason = {"step": f"{name}.reserve", "code": "no", "detail": "said no"}
                    self.assertEqual(execution["status"], "SUCCEEDED")
                    self.assertEqual(json.loads(execution["output"])["outcome"], "failed")
                    self.check_commands(asked, "reserve", parts)
                    self.check_commands(asked, "cancel", parts)
                    self.assertEqual(commands(asked, "abort")["payment"]["reason"], reason)
                    self.assertEqual(commands(asked, "fail")["booking"]["reason"], reason)
                    self.assertEqual(len(asked), 2 * count + 2)
                    self.assertEqual(len(transitions), 7 + 2 * count, transitions)

    def test_whatever_payment_answers_is_the_reason(self):
        reasons = {
            "declined": {"step": "payment.charge", "code": "no", "detail": "said no"},
            "aborted": {"step": "car.reserve", "code": "no", "detail": "by another"},
            "aborted for nothing": None,
        }
        for reference, reason in reasons.items():
            with self.subTest(reference=reference):
                _, asked, transitions = aws.book(plan(3), reference)
                self.assertEqual(commands(asked, "fail")["booking"]["reason"], reason)
                self.check_commands(asked, "cancel", plan(3))
                self.assertEqual(len(transitions), 13, transitions)

    def test_a_part_that_fails_leaves_its_neighbours_alone(self):
        name = aws.sellers[1]
        parts = plan(3, **{name: {"reserve": "CorruptRecord"}})
        _, asked, transitions = aws.book(parts)
        reason = {"step": f"{name}.reserve", "code": "technical_failure", "detail": "gave up after CorruptRecord"}
        self.assertEqual(commands(asked, "fail")["booking"]["reason"], reason)
        self.check_commands(asked, "reserve", parts)
        self.check_commands(asked, "cancel", parts)
        self.assertEqual(len(transitions), 14, transitions)  # its Pass is one more

    def test_a_cancellation_that_fails_needs_an_operator(self):
        one, other = aws.sellers[:2]
        parts = plan(3, **{one: {"reserve": "rejected"}, other: {"cancel": "CorruptRecord"}})
        execution, asked, _ = aws.book(parts)
        self.check_commands(asked, "cancel", parts)
        self.check_needs_operator(execution, asked, f"{other}.cancel", "CorruptRecord")

    def test_a_part_that_nobody_sells_needs_an_operator_and_the_others_are_cancelled(self):
        parts = {**plan(2), "cruise": {"of": "cruise"}}
        execution, asked, _ = aws.book(parts)
        self.check_commands(asked, "cancel", plan(2))
        detail = "gave up after Lambda.ResourceNotFoundException"
        reason = {"step": "cruise.reserve", "code": "technical_failure", "detail": detail}
        self.assertEqual(commands(asked, "abort")["payment"]["reason"], reason)
        self.check_needs_operator(execution, asked, "cruise.cancel", "Lambda.ResourceNotFoundException")

    def check_needs_operator(self, execution, asked, step, error):
        self.assertEqual((execution["status"], execution["error"]), ("FAILED", "NeedsOperator"))
        stuck = {"stuck": [{"step": step, "error": error}], "execution": execution["executionArn"]}
        self.assertEqual(aws.parked(), {"booking_id": execution["name"], **stuck})
        reason = {"step": step, "code": "parked", "detail": f"gave up after {error}"}
        self.assertEqual(commands(asked, "park")["booking"]["reason"], reason)


class Events(unittest.TestCase):
    def reached(self, topic, *messages):
        """Which functions got which of these messages, by their ids."""
        for message in messages:
            aws.sns.publish(TopicArn=aws.outputs[topic], Message=json.dumps(message))
        # What was published last is known to arrive: nothing overtakes it by much.
        last = uuid.uuid4().hex
        aborted = json.dumps({"type": "booking.aborted", "id": last})
        aws.sns.publish(TopicArn=aws.outputs["EventsTopicArn"], Message=aborted)
        until(lambda: sum(last in json.dumps(line["event"]) for line in aws.seen()) == len(aws.sellers))
        time.sleep(0.5)
        got = {message["id"]: set() for message in messages}
        for line in aws.seen():
            for each in got:
                if each in json.dumps(line["event"]):
                    got[each].add(line["function"].removeprefix(f"{STACK}-"))
        return list(got.values())

    def test_events_are_told_by_their_last_word(self):
        """https://docs.aws.amazon.com/sns/latest/dg/string-value-matching.html"""

        def messages(*types):
            return [{"type": kind, "id": uuid.uuid4().hex} for kind in types]

        sellers, name = set(aws.sellers), aws.sellers[0]
        types = {
            "payment.charged": {"booking"},
            f"{name}.cancelled": {"booking"},
            f"{UNKNOWN}.cancelled": {"booking"},
            "booking.requested": sellers,
            "booking.aborted": sellers,
            f"{name}.reserved": set(),
            "cancelled": set(),
            f"{name}.cancelled.not": set(),
            f"{name}cancelled": set(),
        }
        self.assertEqual(self.reached("EventsTopicArn", *messages(*types)), list(types.values()))
        types = {
            f"{name}.reserved": {"payment"},
            f"{UNKNOWN}.reserved": {"payment"},
            f"{UNKNOWN}.rejected": {"payment"},
            f"{UNKNOWN}.cancelled": set(),
            "reserved": set(),
        }
        records = [{"id": it["id"], "responsePayload": it} for it in messages(*types)]
        self.assertEqual(self.reached("OutcomesTopicArn", *records), list(types.values()))
        self.assertEqual(self.reached("OutcomesTopicArn", *messages(f"{name}.reserved")), [set()], "not in a record")

    def test_the_reconciler_knows_the_dead_letters_of_every_participant(self):
        settings = aws.lambdas.get_function_configuration(FunctionName=f"{STACK}-reconciler")
        listed = dict(each.split("=") for each in settings["Environment"]["Variables"]["DEAD_LETTERS"].split(","))
        self.assertEqual(set(listed), {*aws.sellers, "payment", "booking"})
        urls = set(aws.outputs["DeadLetterQueueUrls"].split(",")) - {aws.outputs["ParkedQueueUrl"]}
        self.assertEqual(set(listed.values()), urls)


class Permissions(unittest.TestCase):
    """As the role of the state machine allows, by name and not by how a name begins."""

    @classmethod
    def setUpClass(cls):
        global aws
        cls.addClassCleanup(globals().__setitem__, "aws", aws)
        aws = Aws(AUTH="true")

    def test_the_sellers_of_the_template_may_be_asked(self):
        for count in range(1, len(aws.sellers) + 1):
            execution, _, _ = aws.book(plan(count))
            self.assertEqual(json.loads(execution["output"])["outcome"], "confirmed")

    def test_no_other_function_may_be_asked(self):
        parts = plan(len(aws.sellers))
        for name in (UNKNOWN, "reconciler", "api", "cruise"):  # but for the last, each exists
            with self.subTest(part=name):
                execution, asked, _ = aws.book({**parts, name: {}})
                self.assertEqual((execution["status"], execution["error"]), ("FAILED", "NeedsOperator"))
                self.assertNotIn(name, {line["event"]["step"].split(".")[0] for line in asked})
                self.assertEqual(set(commands(asked, "cancel")), set(parts))
                stuck = [{"step": f"{name}.cancel", "error": "Lambda.AccessDeniedException"}]
                self.assertEqual(aws.parked()["stuck"], stuck)


if __name__ == "__main__":
    unittest.main()
