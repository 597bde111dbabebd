"""Reserves seats on a flight, once per booking and step: Powertools' idempotency around a conditional write."""

import json
import os

import boto3
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent
from botocore.exceptions import ClientError

dynamodb = boto3.resource("dynamodb")
stock = dynamodb.Table(os.environ["STOCK_TABLE"])
records = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])
config = IdempotencyConfig(
    event_key_jmespath="[booking_id, step]",
    payload_validation_jmespath="part",
    raise_on_no_idempotency_key=True,
    expires_after_seconds=730 * 24 * 3600,
)


@idempotent(persistence_store=records, config=config)
def handler(event, context):
    outcome = reserve(event["part"])
    print(json.dumps({"level": "INFO", "message": "step done", "booking_id": event["booking_id"], "outcome": outcome}))
    return {"booking_id": event["booking_id"], "step": event["step"], "outcome": outcome}


def reserve(flight):
    try:
        stock.update_item(
            Key={"product": flight["flight_no"], "date": flight["date"]},
            UpdateExpression="SET available = available - :units",
            ConditionExpression="available >= :units",
            ExpressionAttributeValues={":units": flight["seats"]},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
            return "rejected"
        raise
    return "reserved"
