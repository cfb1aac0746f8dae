#!/usr/bin/env python3
"""Checks split.txt by its definition, with no code of Leat's: XXH64 written out, and the logarithm of a float."""
import math, os, sys

M = 2**64 - 1
P1, P2, P3, P4, P5 = (11400714785074694791, 14029467366897019727, 1609587929392839161,
                      9650029242287828579, 2870177450012600261)
rotl = lambda x, r: (x << r | x >> 64 - r) & M
rnd = lambda a, x: rotl((a + x * P2) & M, 31) * P1 & M


def xxh64(b, seed=0):
    n, at = len(b), 0
    if n >= 32:
        v = [(seed + P1 + P2) & M, (seed + P2) & M, seed, (seed - P1) & M]
        while at + 32 <= n:
            for i in range(4):
                v[i] = rnd(v[i], int.from_bytes(b[at:at + 8], "little"))
                at += 8
        h = (rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18)) & M
        for x in v:
            h = ((h ^ rnd(0, x)) * P1 + P4) & M
    else:
        h = (seed + P5) & M
    h = (h + n) & M
    while at + 8 <= n:
        h = (rotl(h ^ rnd(0, int.from_bytes(b[at:at + 8], "little")), 27) * P1 + P4) & M
        at += 8
    if at + 4 <= n:
        h = (rotl(h ^ int.from_bytes(b[at:at + 4], "little") * P1 & M, 23) * P2 + P3) & M
        at += 4
    for x in b[at:]:
        h = rotl(h ^ x * P5 & M, 11) * P1 & M
    h = (h ^ h >> 33) * P2 & M
    h = (h ^ h >> 29) * P3 & M
    return h ^ h >> 32


def mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & M
    x = (x ^ x >> 27) * 0x94D049BB133111EB & M
    return x ^ x >> 31


def key_hash(salt, key):
    return xxh64(key.encode(), xxh64(salt.encode()))


def arm(salt, arms, key):
    h, best = key_hash(salt, key), None
    for name, weight in (a.split("=") for a in arms.split(",")):
        if int(weight):
            e = -math.log2(mix(h ^ xxh64(name.encode())) / 2**64) / int(weight)
            best = min(best or (e, name), (e, name))
    return best[1]


def sample(salt, rate, key):
    return str(mix(key_hash(salt, key) ^ xxh64(b"\0sample")) * 10**6 >> 64 < int(rate)).lower()


def seed(byte, row, path):
    return "%016x" % xxh64(bytes([int(byte)]) * 32 + int(row).to_bytes(8, "little") + path.encode())


bad = n = 0
for line in open(os.path.join(os.path.dirname(__file__), "split.txt")):
    if not line.startswith("#"):
        *args, want = line.split()
        got = {"arm": arm, "sample": sample, "seed": seed}[args[0]](*args[1:])
        n += 1
        if got != want:
            bad += 1
            print(line.strip(), "but", got)
print(n, "lines,", bad, "differ")
sys.exit(bad > 0)
