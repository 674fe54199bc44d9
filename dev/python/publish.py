#!/usr/bin/env python3
"""Publishes records to a topic with confluent-kafka: the example of the README, and what the tests run.

    publish.py BOOTSTRAP TOPIC < records.jsonl

A line {"id": .., "vector": [..], "metadata": {..}} is an upsert, a line {"id": .., "deleted": true} a delete.
"""

import json
import sys

from confluent_kafka import Producer


def main():
    bootstrap, topic = sys.argv[1:3]
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            # Java clients, Connect and Sluice place keys by murmur2; librdkafka does so only when told to
            "partitioner": "murmur2_random",
        }
    )
    failures = []

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    for line in sys.stdin:
        record = json.loads(line)
        # a null value is Kafka's delete
        value = None if record.get("deleted") else json.dumps(record).encode()
        producer.produce(topic, key=record["id"].encode(), value=value, on_delivery=delivered)
        producer.poll(0)
    producer.flush()
    if failures:
        sys.exit(f"{len(failures)} messages were not delivered, the first: {failures[0]}")


if __name__ == "__main__":
    main()
