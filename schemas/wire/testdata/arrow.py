"""Reads what Leat wrote, as another implementation does, and writes it again.

arrow.py rewrite STREAM BATCH OUT_STREAM OUT_BATCH
    STREAM is a whole Arrow stream, BATCH the RecordBatch message alone. Both must hold the same rows. They are turned
    into Python values and back, and written as a stream and as a message.
arrow.py foreign OUT_STREAM
    Writes a stream of types that Leat has to cast.
"""
import sys
import pyarrow as pa


def plain(t):
    """The type under which values go through Python: nanoseconds do not fit its datetime, half floats have none."""
    if pa.types.is_timestamp(t):
        return pa.int64()
    if pa.types.is_float16(t):
        return pa.float32()
    return t


def values(a):
    """The values of an array as a Python list; a tensor's are those of all its rows, one after the other."""
    if pa.types.is_fixed_size_list(a.type):
        a = a.values
    return a.cast(plain(a.type)).to_pylist()


def through_python(a):
    if pa.types.is_fixed_size_list(a.type):
        mask = pa.array([not v.is_valid for v in a], pa.bool_())
        child = pa.array(values(a), plain(a.type.value_type)).cast(a.type.value_type)
        return pa.FixedSizeListArray.from_arrays(child, type=a.type, mask=mask if a.null_count else None)
    return pa.array(values(a), plain(a.type)).cast(a.type)


def rewrite(stream, batch, out_stream, out_batch):
    with pa.ipc.open_stream(stream) as r:
        rows = r.read_next_batch()
        schema = r.schema
        try:
            r.read_next_batch()
            raise SystemExit("more than one batch")
        except StopIteration:
            pass
    alone = pa.ipc.read_record_batch(pa.ipc.read_message(open(batch, "rb").read()), schema)
    alone.validate(full=True)
    rows.validate(full=True)
    for a, b in zip(rows.columns, alone.columns):
        assert repr(values(a)) == repr(values(b))
    again = pa.RecordBatch.from_arrays([through_python(a) for a in rows.columns], schema=schema)
    with pa.OSFile(out_stream, "wb") as f, pa.ipc.new_stream(f, schema) as w:
        w.write_batch(again)
    with open(out_batch, "wb") as f:
        f.write(again.serialize().to_pybytes())
    print(again.num_rows, pa.__version__)


def foreign(out):
    big = ["UA", "Zürich", None, "B6"]
    cols = {
        "unused_list": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int64())),
        "carrier": pa.array(big, pa.large_string()),
        "distance": pa.array([1400, 200, 733, 2475], pa.int64()),
        "unused_struct": pa.array([{"a": 1, "b": ["x"]}] * 4, pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))])),
        "dep_delay": pa.array([0.1, None, -3.0, 1e10], pa.float64()),
        "time": pa.array([1372680000, 1, 2, 3], pa.timestamp("s", tz="America/New_York")),
        "unused_decimal": pa.array([1, 2, 3, 4], pa.int64()).cast(pa.decimal128(30, 2)),
        "night": pa.array([True, False, True, True]),
        "b": pa.array([1, 2, 3, 4], pa.uint8()),
        "a": pa.array([5.0, 6.0, 7.0, 8.0], pa.float32()),
        "nothing": pa.nulls(4),
    }
    table = pa.table(cols)
    with pa.OSFile(out, "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
        for b in table.to_batches(max_chunksize=3):
            w.write_batch(b)


if __name__ == "__main__":
    {"rewrite": rewrite, "foreign": foreign}[sys.argv[1]](*sys.argv[2:])
