import json, sys, uuid
from confluent_kafka import Consumer, Producer, TopicPartition

servers, pipeline, path = sys.argv[1:4]
me, place, faults = uuid.uuid4().hex, TopicPartition("leat.replies", 0), []
consumer = Consumer({"bootstrap.servers": servers, "group.id": me, "enable.auto.commit": False})
place.offset = consumer.get_watermark_offsets(place, timeout=5)[1]  # the end: the answer comes behind it
consumer.assign([place])
producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "topic.metadata.propagation.max.ms": 0})
producer.produce(f"leat.score.{pipeline}", open(path, "rb").read(), on_delivery=lambda e, _: e and faults.append(e.str()), headers={
    "Leat-Request-Id": me, "Leat-Reply-To": place.topic, "Leat-Reply-Partition": str(place.partition), "Leat-Timeout": "2s"})
if producer.flush(5) or faults:
    sys.exit(f"not sent: {faults}")  # an unknown topic: there is no such pipeline
while reply := consumer.poll(5) or sys.exit("no answer"):
    header = {k: v.decode() for k, v in reply.headers() or []}
    if header.get("Leat-Request-Id") == me:  # else it is somebody else's
        break
body = json.loads(reply.value())
if kind := header.get("Leat-Error-Kind"):
    sys.exit(f"{kind}: {body['message']}")
print(header["Leat-Model"], me, body["rows"])
