"""Reads golden.lineage with pyarrow alone: what a reader in another language has to do.

Usage: python3 read.py [FILE]    needs pyarrow; prints one line for each record and exits 1 if the golden values differ
"""

import pathlib
import struct
import sys

import pyarrow as pa

ENVELOPE = pa.schema([
    ("context", pa.int32()), ("request", pa.int32()), ("row", pa.int32()), ("status", pa.uint8()),
    ("error_kind", pa.string()), ("error_id", pa.string()), ("error", pa.string()),
    ("propensity", pa.float64()), ("seed", pa.uint64()), ("state", pa.uint64()), ("batch_size", pa.int32()), ("batch_row", pa.int32()),
    ("queue_ns", pa.int64()), ("score_ns", pa.int64()), ("scored", pa.timestamp("ns", "UTC")),
    ("input_frame", pa.int32()), ("input_row", pa.int32()), ("output_frame", pa.int32()), ("output_row", pa.int32()),
])
CONTEXT = pa.schema([(n, pa.string()) for n in "principal via pipeline revision node role arm model".split()]
                    + [("version", pa.int32())] + [(n, pa.string()) for n in "digest run runtime cpu withheld".split()]
                    + [("salt", pa.list_(pa.uint8(), 16))])
REQUEST = pa.schema([
    ("request_id", pa.string()), ("attempt", pa.int32()), ("trace_id", pa.string()), ("parent_id", pa.string()),
    ("from_stream", pa.string()), ("from_partition", pa.int32()), ("from_sequence", pa.uint64()),
    ("input_digest", pa.list_(pa.uint8(), 32)), ("event_time", pa.timestamp("ns", "UTC")), ("received", pa.timestamp("ns", "UTC")),
])
# The schemas of data frames come from the catalogue, by their ids; the golden file has these two.
DATA = [pa.schema([(f"x{i}", pa.float32()) for i in range(3)]), pa.schema([("p0", pa.float32())])]


def frames(message):
    at = 0
    while at < len(message):
        (size,) = struct.unpack_from("<I", message, at)
        yield message[at + 4:at + 20].hex(), message[at + 20:at + 4 + size]
        at += 4 + size


def plain(batch):
    """Rows as dicts; times stay nanoseconds, which Python's own datetime cannot hold."""
    return pa.Table.from_arrays([c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in batch.columns],
                                names=batch.schema.names).to_pylist()


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("golden.lineage")
    parts = [batch for _, batch in frames(pathlib.Path(path).read_bytes())]
    batches = [pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(b)), s)
               for b, s in zip(parts, [ENVELOPE, CONTEXT, REQUEST] + DATA, strict=True)]
    envelope, context, request = (plain(b) for b in batches[:3])
    rows = []
    for r in envelope:
        values = [batches[r[f"{side}_frame"]].slice(r[f"{side}_row"], 1).to_pylist()[0] for side in ("input", "output")]
        rows.append((context[r["context"]]["pipeline"], request[r["request"]]["request_id"], r["row"], r["status"] == 1, *values))
        print(*rows[-1])
    want = [("fraud", "golden", i, True, {"x0": i, "x1": i + 0.25, "x2": i + 0.5}, {"p0": i / 2}) for i in range(2)]
    if rows != want or request[0]["from_sequence"] != 9 or context[0]["salt"] != list(range(16)):
        sys.exit("golden.lineage does not hold what it should")


main()
