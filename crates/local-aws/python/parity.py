"""How a stack's resources behave at AWS_ENDPOINT_URL: one test for each feature that docs/local-testing.md compares
and that the demo's scenarios do not show. HARMONY_STACK names the stack. Refuses to run on AWS itself, because it
changes tables and queues.
"""

import contextlib
import json
import os
import time
import unittest
import urllib.error
import urllib.request
import uuid

import boto3

ENDPOINT = os.environ.get("AWS_ENDPOINT_URL") or exit("set AWS_ENDPOINT_URL to an emulator with the stack on it")
REGION = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "eu-central-1"
PATIENCE = 180  # seconds: functions start in containers


def client(service):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, REGION, endpoint_url=ENDPOINT, **keys)


dynamodb, sqs, sns, logs = (client(name) for name in ("dynamodb", "sqs", "sns", "logs"))
STACK = os.environ.get("HARMONY_STACK") or "harmony"
STATE = client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
OUTPUTS = {output["OutputKey"]: output["OutputValue"] for output in STATE["Outputs"]}
API = f"{ENDPOINT}/_aws/execute-api/{OUTPUTS['ApiId']}/live"


def is_localemu():
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{ENDPOINT}/_localemu/health", timeout=10) as answer:
        return answer.status == 200


def not_on_localemu(test):
    """A known difference there. The test also fails if the difference has gone."""
    return unittest.expectedFailure(test) if is_localemu() else test


def queue(name):
    urls = f"{OUTPUTS['InboxUrls']},{OUTPUTS['DeadLetterQueueUrls']}".split(",")
    return next(url for url in urls if f"-{name}" in url)


def arn(url):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def wait_for(what, look):
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not arrive within {PATIENCE} s")
        time.sleep(0.5)
    return found


def taken(name, text):
    """Messages with that text, taken from the queue."""
    received = sqs.receive_message(
        QueueUrl=queue(name), MaxNumberOfMessages=10, VisibilityTimeout=2, MessageAttributeNames=["All"]
    )
    found = [message for message in received.get("Messages", []) if text in message["Body"]]
    for message in found:
        sqs.delete_message(QueueUrl=queue(name), ReceiptHandle=message["ReceiptHandle"])
    return found


class Transactions(unittest.TestCase):
    def setUp(self):
        self.key = {"booking_id": {"S": f"parity-{uuid.uuid4()}"}}
        self.table = OUTPUTS["PaymentsTableName"]
        dynamodb.put_item(TableName=self.table, Item={**self.key, "count": {"N": "1"}})
        self.addCleanup(dynamodb.delete_item, TableName=self.table, Key=self.key)

    def count(self):
        item = dynamodb.get_item(TableName=self.table, Key=self.key, ConsistentRead=True)["Item"]
        return int(item["count"]["N"])

    def one_more(self):
        names, values = {"#count": "count"}, {":one": {"N": "1"}}
        add = {"UpdateExpression": "ADD #count :one", "ExpressionAttributeNames": names}
        return {"TableName": self.table, "Key": self.key, "ExpressionAttributeValues": values, **add}

    def only_new(self):
        condition = {"ConditionExpression": "attribute_not_exists(booking_id)"}
        return {"TableName": self.table, "Item": self.key, "ReturnValuesOnConditionCheckFailure": "ALL_OLD", **condition}

    def test_one_that_fails_says_why_and_what_is_there_and_changes_nothing(self):
        other = {"booking_id": {"S": f"parity-{uuid.uuid4()}"}}
        put = {"TableName": self.table, "Item": other}
        with self.assertRaises(dynamodb.exceptions.TransactionCanceledException) as failed:
            dynamodb.transact_write_items(TransactItems=[{"Put": put}, {"Put": self.only_new()}])
        none, reason = failed.exception.response["CancellationReasons"]
        self.assertEqual(none["Code"], "None")
        self.assertEqual((reason["Code"], reason["Item"]["count"]), ("ConditionalCheckFailed", {"N": "1"}))
        self.assertNotIn("Item", dynamodb.get_item(TableName=self.table, Key=other))

    def test_a_single_write_that_fails_says_what_is_there(self):
        with self.assertRaises(dynamodb.exceptions.ConditionalCheckFailedException) as failed:
            dynamodb.put_item(**self.only_new())
        self.assertEqual(failed.exception.response["Item"]["count"], {"N": "1"})

    @not_on_localemu  # Nothing relies on it: a repeated step finds its journal item.
    def test_one_that_is_sent_twice_with_its_token_is_one(self):
        token = str(uuid.uuid4())
        for _ in range(2):
            dynamodb.transact_write_items(TransactItems=[{"Update": self.one_more()}], ClientRequestToken=token)
        self.assertEqual(self.count(), 2)

    def test_time_to_live_is_on(self):
        described = dynamodb.describe_time_to_live(TableName=OUTPUTS["JournalTableName"])["TimeToLiveDescription"]
        self.assertEqual((described["TimeToLiveStatus"], described["AttributeName"]), ("ENABLED", "expiration"))


class Api(unittest.TestCase):
    def test_a_body_reaches_the_function_as_it_was_sent(self):
        headers = {"Content-Type": "application/json", "Idempotency-Key": "parity"}
        request = urllib.request.Request(f"{API}/bookings", b'{"variant": "\xff"}', headers, method="POST")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        self.assertEqual((refused.exception.code, "UTF-8" in refused.exception.read().decode()), (400, True))


class Messages(unittest.TestCase):
    def setUp(self):
        self.text = f"parity-{uuid.uuid4()}"

    def test_an_event_that_is_given_up_is_recorded_after_three_attempts(self):
        event = {"type": "booking.requested", "booking_id": self.text}
        sns.publish(TopicArn=OUTPUTS["EventsTopicArn"], Message=json.dumps(event))
        found = []

        sellers = [name for name in OUTPUTS if name.endswith("StockTableName")]

        def all_of_them():
            found.extend(taken("StepFailuresDeadLetters", self.text))
            return len(found) == len(sellers)

        wait_for("the record of each seller", all_of_them)
        for message in found:
            record = json.loads(message["Body"])
            self.assertEqual(record["requestContext"]["condition"], "RetriesExhausted")
            self.assertEqual(record["requestContext"]["approximateInvokeCount"], 3)
            self.assertEqual(record["responseContext"]["functionError"], "Unhandled")
            self.assertIn("errorType", record["responsePayload"])
            self.assertIn(self.text, record["requestPayload"]["Records"][0]["Sns"]["Message"])

    def test_what_nobody_can_read_is_parked_and_can_be_moved_back(self):
        sqs.send_message(QueueUrl=queue("FlightInbox"), MessageBody=self.text)
        url = queue("FlightDeadLetters")

        def seen():
            received = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, MaxNumberOfMessages=10)
            return [message["MessageId"] for message in received.get("Messages", []) if self.text in message["Body"]]

        first = wait_for("the parked message", seen)
        sqs.start_message_move_task(SourceArn=arn(url), DestinationArn=arn(queue("FlightInbox")))
        wait_for("the message, parked again", lambda: (again := seen()) and again != first)
        self.assertIn("not valid JSON", taken("FlightDeadLetters", self.text)[0]["MessageAttributes"]["reason"]["StringValue"])


@unittest.skipUnless(os.environ.get("IAM_ENFORCEMENT") == "1", "the emulator does not enforce roles")
class Roles(unittest.TestCase):
    """The bookings show that a role allows everything its function does."""

    def twin(self):
        """A role with flight's policies that this test may assume; flight's own role is for Lambda only."""
        iam = client("iam")
        arn = client("lambda").get_function_configuration(FunctionName=f"{STACK}-flight")["Role"]
        role, account = arn.rpartition("/")[2], arn.split(":")[4]
        trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        name = f"parity-{uuid.uuid4()}"
        twin = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        self.addCleanup(iam.delete_role, RoleName=name)
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = json.dumps(iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"])
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document)
            self.addCleanup(iam.delete_role_policy, RoleName=name, PolicyName=policy)
        return twin

    def setUp(self):
        session = client("sts").assume_role(RoleArn=self.twin(), RoleSessionName="parity")["Credentials"]
        keys = {"aws_access_key_id": session["AccessKeyId"], "aws_secret_access_key": session["SecretAccessKey"]}
        token = {"aws_session_token": session["SessionToken"]}
        self.flight = boto3.client("dynamodb", REGION, endpoint_url=ENDPOINT, **keys, **token)

    def update(self, table, **key):
        update = {"UpdateExpression": "SET seen = :now", "ExpressionAttributeValues": {":now": {"N": "1"}}}
        condition = {"ConditionExpression": "attribute_exists(nothing)"}
        return {"TableName": OUTPUTS[table], "Key": {name: {"S": "parity"} for name in key}, **update, **condition}

    def answer(self, request, **given):
        with self.assertRaises(self.flight.exceptions.ClientError) as refused:
            request(**given)
        return refused.exception.response["Error"]["Code"]

    def test_what_it_allows_is_allowed_and_one_action_more_is_denied(self):
        own = self.update("FlightStockTableName", product=1, date=1)
        delete = {"TableName": own["TableName"], "Key": own["Key"]}
        others = self.update("HotelStockTableName", product=1, date=1)
        write = self.flight.transact_write_items
        self.assertEqual(self.answer(self.flight.update_item, **own), "ConditionalCheckFailedException")
        self.assertEqual(self.answer(write, TransactItems=[{"Update": own}]), "TransactionCanceledException")
        denied = "AccessDeniedException", "AccessDenied"
        self.assertIn(self.answer(self.flight.delete_item, **delete), denied)
        self.assertIn(self.answer(self.flight.update_item, **others), denied)
        self.assertIn(self.answer(write, TransactItems=[{"Delete": delete}]), denied)


class Schedule(unittest.TestCase):
    def test_the_reconciler_is_invoked(self):
        group = {"logGroupName": f"/aws/lambda/{STACK}-reconciler"}
        wait_for("a run of the reconciler", lambda: logs.describe_log_streams(**group)["logStreams"])


if __name__ == "__main__":
    unittest.main()
