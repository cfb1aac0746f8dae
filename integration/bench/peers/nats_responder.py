"""The best NATS scorer that users build today: it drains its queue, scores what it found in one run, and records nothing.

    nats_responder.py URL SUBJECT MODEL.onnx

Prints one line when it answers, and ends when its standard input does. Payload {"rows":[{name: number, ...}, ...]}, answer {"rows":[{"label", "probabilities"}]}.
"""

import asyncio
import os
import sys
from operator import itemgetter

import nats
import numpy as np
import onnxruntime as ort
import orjson
import uvloop

FEATURES = (
    "dep_delay", "sched_dep_minute", "sched_clock_minutes", "day_of_week", "distance", "temp", "humid",
    "wind_speed", "precip", "pressure", "visib", "plane_age", "seats",
)
MOST = 1024  # rows a run


def load(path):
    o = ort.SessionOptions()
    o.intra_op_num_threads = 1
    o.inter_op_num_threads = 1
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


async def main(url, subject, model):
    session = load(model)
    take = itemgetter(*FEATURES)
    loads, dumps = orjson.loads, orjson.dumps
    nc = await nats.connect(url, allow_reconnect=False)
    waiting = []
    loop = asyncio.get_running_loop()

    async def score():
        # Everything that the reader has handed over since the last run goes into this one.
        batch, rows, counts = waiting[:MOST], [], []
        del waiting[:MOST]
        asked = []
        for m in batch:
            try:
                r = [take(x) for x in loads(m.data)["rows"]]
            except (orjson.JSONDecodeError, KeyError, TypeError) as e:
                await nc.publish(m.reply, dumps({"error": str(e)}))
                continue
            rows += r
            counts.append(len(r))
            asked.append(m.reply)
        if rows:
            label, p = session.run(None, {"features": np.array(rows, dtype=np.float32)})
            label, p, at = label.tolist(), p.tolist(), 0
            for reply, n in zip(asked, counts):
                out = [{"label": label[i], "probabilities": p[i]} for i in range(at, at + n)]
                at += n
                await nc.publish(reply, dumps({"rows": out}))
        if waiting:
            loop.call_soon(start)

    running = set()  # a task without a reference may be collected while it runs

    def start():
        t = loop.create_task(score())
        running.add(t)
        t.add_done_callback(running.discard)

    async def receive(m):
        waiting.append(m)
        if len(waiting) == 1:
            loop.call_soon(start)

    await nc.subscribe(subject, queue="scorers", cb=receive, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await nc.flush()
    print("ready", flush=True)
    await asyncio.to_thread(os.read, 0, 1)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4]))
