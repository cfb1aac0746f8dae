import asyncio, json, sys
import nats

async def main(url, pipeline, path):
    nc = await nats.connect(url)
    body = open(path, "rb").read()  # {"rows": [{...}, ...]}
    reply = await nc.request(f"leat.score.{pipeline}", body, timeout=5, headers={"Leat-Timeout": "2s"})
    if kind := (reply.headers or {}).get("Leat-Error-Kind"):
        sys.exit(f"{kind}: {json.loads(reply.data)['message']}")
    print(reply.headers["Leat-Model"], reply.headers["Leat-Request-Id"])
    for row in json.loads(reply.data)["rows"]:
        print(row)
    await nc.close()

asyncio.run(main(*sys.argv[1:4]))
