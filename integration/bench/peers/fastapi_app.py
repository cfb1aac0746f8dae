"""The best HTTP scorer that users build today: FastAPI on uvicorn with uvloop, httptools and orjson, recording nothing.

    LEAT_PEER_MODEL=MODEL.onnx fastapi_app.py PORT WORKERS

Ends, with its workers, when its standard input does. Answers POST /v2/models/{name}/infer of the Open Inference Protocol, one float32 input tensor [N,13] named features.
"""

import os
import signal
import sys
import threading

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

o = ort.SessionOptions()
o.intra_op_num_threads = 1
o.inter_op_num_threads = 1
o.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(os.environ["LEAT_PEER_MODEL"], o, providers=["CPUExecutionProvider"])
app = FastAPI(openapi_url=None)
MEDIA = "application/json"


@app.get("/v2/health/ready")
async def ready():
    return Response(b'{"ready":true}', media_type=MEDIA)


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request):
    # No pydantic model in between and no thread: a run takes microseconds, a hop to a thread takes more.
    try:
        tensor = orjson.loads(await request.body())["inputs"][0]
        x = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError) as e:
        return Response(orjson.dumps({"error": str(e)}), 400, media_type=MEDIA)
    label, p = session.run(None, {"features": x})
    return Response(
        orjson.dumps({
            "model_name": name,
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": label.shape, "data": label.tolist()},
                {"name": "probabilities", "datatype": "FP32", "shape": p.shape, "data": p.ravel().tolist()},
            ],
        }),
        media_type=MEDIA,
    )


def end_with_parent():
    os.read(0, 1)  # not sys.stdin, whose lock would hold up the end
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    uvicorn.run(
        "fastapi_app:app", host="127.0.0.1", port=int(sys.argv[1]), workers=int(sys.argv[2]), loop="uvloop",
        http="httptools", access_log=False, log_level="error",
    )
