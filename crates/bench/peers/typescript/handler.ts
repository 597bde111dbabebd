// Reserves seats on a flight, once per booking and step: Powertools' idempotency around a conditional write.

import { IdempotencyConfig, makeIdempotent } from '@aws-lambda-powertools/idempotency';
import { DynamoDBPersistenceLayer } from '@aws-lambda-powertools/idempotency/dynamodb';
import { ConditionalCheckFailedException, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { DynamoDBDocumentClient, UpdateCommand } from '@aws-sdk/lib-dynamodb';
import type { Context } from 'aws-lambda';

type Flight = { flight_no: string; date: string; seats: number };
type Command = { step: string; booking_id: string; part: Flight };

const client = new DynamoDBClient({});
const documents = DynamoDBDocumentClient.from(client);
const records = new DynamoDBPersistenceLayer({
  tableName: process.env.IDEMPOTENCY_TABLE ?? '',
  awsSdkV3Client: client,
});
const config = new IdempotencyConfig({
  eventKeyJmesPath: '[booking_id, step]',
  payloadValidationJmesPath: 'part',
  throwOnNoIdempotencyKey: true,
  expiresAfterSeconds: 730 * 24 * 3600,
});

const reserve = async (flight: Flight): Promise<'reserved' | 'rejected'> => {
  try {
    await documents.send(
      new UpdateCommand({
        TableName: process.env.STOCK_TABLE,
        Key: { product: flight.flight_no, date: flight.date },
        UpdateExpression: 'SET available = available - :units',
        ConditionExpression: 'available >= :units',
        ExpressionAttributeValues: { ':units': flight.seats },
      }),
    );
    return 'reserved';
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) return 'rejected';
    throw error;
  }
};

export const handler = makeIdempotent(
  async (command: Command, _context: Context) => {
    const outcome = await reserve(command.part);
    const { booking_id, step } = command;
    console.log(JSON.stringify({ level: 'INFO', message: 'step done', booking_id, outcome }));
    return { booking_id, step, outcome };
  },
  { persistenceStore: records, config },
);
