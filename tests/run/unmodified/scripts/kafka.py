"""A producer without a broker: librdkafka reports errors and deliveries through poll()."""

from confluent_kafka import Producer
from witness import visit

reports = []


def on_delivery(error, _message):
    visit()
    reports.append(error is not None)


producer = Producer(
    {"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 300, "log_level": 0}, logger=None
)
for number in range(20):
    producer.produce("topic", str(number), on_delivery=on_delivery)
producer.flush(20)
print(len(reports), set(reports))
