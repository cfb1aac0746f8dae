import asyncio, sys
import nats

async def main(url, bucket, key, value):
    nc = await nats.connect(url)
    kv = await nc.jetstream().key_value(bucket)  # made with: leat features create BUCKET
    print("revision", await kv.put(key, value.encode()))  # a JSON object: {"plane_age": 9, "seats": 150}
    await nc.close()

asyncio.run(main(*sys.argv[1:5]))
