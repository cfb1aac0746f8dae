"""Writes digest.json: specs, their canonical JSON, digests and revisions, by Python's standard library alone.

The defaults are filled in by hand below. The keys are ASCII and the values text, so that json.dumps with sorted keys
is RFC 8785 here. Run it in this folder: python3 digest.py
"""
import hashlib
import json
import struct


def part(s):
    b = s.encode()
    return struct.pack("<I", len(b)) + b


def revision(spec_digest, models):
    b = part(spec_digest)
    for m in sorted(models, key=lambda m: m["node"].encode()):
        b += part(m["node"]) + part(m["digest"])
    return hashlib.sha256(b).hexdigest()


HEAD = {"apiVersion": "leat/v1", "kind": "Pipeline", "lineage": "strict", "deadline": "5s"}
CASES = [
    ("apiVersion: leat/v1\nkind: Pipeline\nname: p\nroute: {model: m}\n",
     {**HEAD, "name": "p", "route": {"model": "m@champion"}},
     [{"node": "route", "digest": "aa" * 32}]),
    ("apiVersion: leat/v1\nkind: Pipeline\nname: flight-delay\ndescription: \"late? \\u20ac <&> \\\"x\\\"\\n\"\n"
     "labels: {team: ops, a: b}\ninput: {topic: flights.departures}\noutput: {topic: flights.delay-scores}\n"
     "lineage: async\ndeadline: 250ms\nrecord: {mask: [tailnum], drop: [seats, temp]}\nroute: {model: flight-delay@3}\n",
     {**HEAD, "name": "flight-delay", "description": "late? \u20ac <&> \"x\"\n", "labels": {"team": "ops", "a": "b"},
      "input": {"topic": "flights.departures"}, "output": {"topic": "flights.delay-scores"}, "lineage": "async",
      "deadline": "250ms", "record": {"mask": ["tailnum"], "drop": ["seats", "temp"]}, "route": {"model": "flight-delay@3"}},
     [{"node": "route", "digest": "0123456789abcdef" * 4}]),
    ("apiVersion: leat/v1\nkind: Pipeline\nname: o\ninput: {stream: ORDERS, subject: 'orders.>'}\ndeadline: 90s\nroute: {model: m@blue}\n",
     {**HEAD, "name": "o", "input": {"stream": "ORDERS", "subject": "orders.>"}, "deadline": "1m30s", "route": {"model": "m@blue"}},
     [{"node": "route/b", "digest": "bb"}, {"node": "route", "digest": "cc"}, {"node": "route/a", "digest": "bb"}]),
    ("apiVersion: leat/v1\nkind: Pipeline\nname: none\nroute: {model: m@1}\n",
     {**HEAD, "name": "none", "route": {"model": "m@1"}},
     []),
]

out = []
for text, spec, models in CASES:
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    out.append({"spec": text, "canonical": canonical, "specDigest": digest, "models": models, "revision": revision(digest, models)})
with open("digest.json", "w", encoding="utf-8") as f:
    json.dump(out, f, indent=1, ensure_ascii=False)
    f.write("\n")
