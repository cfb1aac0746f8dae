import json, sys, urllib.request

url, model, path = sys.argv[1:4]
row = json.load(open(path, "rb"))["rows"][0]
inputs = [{"name": k, "shape": [1, 1], "datatype": "BYTES" if isinstance(v, str) else "FP32", "data": [v]}
          for k, v in row.items() if v is not None]  # a nullable input may be left out
request = urllib.request.Request(f"{url}/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode(),
                                 {"Content-Type": "application/json", "Leat-Timeout": "2s"})
try:
    reply = urllib.request.urlopen(request)
except urllib.error.HTTPError as e:
    sys.exit(f"{e.code} {json.load(e)['error']}")
print(reply.headers["Leat-Model"], reply.headers["Leat-Request-Id"])
for output in json.load(reply)["outputs"]:
    print(output["name"], output["data"])
