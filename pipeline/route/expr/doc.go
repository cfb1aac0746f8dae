// Package expr compiles expressions of a route (conditions, transforms, rewards) to programs over the columns of a batch.
//
// The language is CEL (cel.dev); cel-go parses and type-checks it, and this package turns what was checked into kernels,
// each of which works on all rows of a chunk at once. Text and schemas go in once; then batches go in and bools or columns
// come out. It reads no clock, does no I/O, starts no goroutine, and after warm-up allocates nothing a row.
//
// # Names
//
// input.NAME and output.NAME are columns, or elements of a packed tensor by their feature's name. A name that is no
// identifier is written input.`dep-delay` or input["dep delay"]. has(input.NAME) is "not null".
//
// # Types
//
// Integer columns are CEL's int and uint, float columns double (float16 and float32 are widened), String string, Binary
// bytes, Timestamp timestamp. A tensor is a flat list of a length that is known at compile time. Numbers of two types are
// added only after double(x), int(x) or uint(x), but are compared with == != < <= > >= and in by value, as in CEL.
// A result has CEL's type (int64, uint64, float64) if something was computed; if its every value is one of a column (the
// column itself, ?:, coalesce, max, min, clamp, an index, a list of such), or a constant that the column's type holds
// exactly, it keeps the column's type: coalesce(input.delay, 0.0) of a float32 column is float32. float32(x) and int32(x)
// make narrow results. See Program.Field; Program.Append also converts to the type of the column it fills.
//
// # Null
//
// A null in arithmetic, a comparison or a function gives null. && and || are three-valued: false && null is false,
// true && null is null. x == null and x != null ask for null itself and are never null. coalesce(a, b, ...) is the first
// that is not null. C ? a : b looks at the branch that it takes alone, and either branch may be null; a null C gives null. A list
// with a null element is null. In a condition null is false.
//
// # Errors of a row
//
// Integer overflow, integer division by zero, an index out of range, text that is no number, a number out of its type's
// range, NaN in bucket, clamp with lo > hi, times outside of 1678 to 2262: an error of the row. An error wins over a null, except
// that, as in CEL, false && error is false, true || error is true, and a branch that is not taken does not matter. In a
// condition an error is false (and counted, see Bools); Append reports it. A constant part that fails, fails for the rows
// that come by it, not at compile time.
//
// # Floats
//
// IEEE 754: x / 0.0 is an infinity, NaN compares false with all but !=, sqrt(-1.0) is NaN. (cel-go makes an error of ordering
// NaN; CEL's definition does not.) A NaN in a list makes max, min, sum and mean NaN, and argmax the first NaN's index, as
// NumPy does. Sums run from first to last. A NaN is no null: is_nan(x) asks for it. A float32 is compared as the double that
// it is: 0.1 in a float32 column is not 0.1 but float32(0.1), and lies above it.
//
// # Functions
//
// CEL's: size, startsWith, endsWith, contains, matches (RE2, a constant pattern), lowerAscii, upperAscii, in, list[i], list + list,
// text + text, the conversions bool, int, uint, double, string, bytes, timestamp, duration (of a constant), and
// getFullYear, getMonth, getDate, getDayOfMonth, getDayOfWeek, getDayOfYear, getHours, getMinutes, getSeconds,
// getMilliseconds of a timestamp in UTC or at an offset such as "+02:00" (no named zones: their rules differ between
// machines); the last four of a duration too.
//
// Ours, on scalars: coalesce, abs, floor, ceil, round (half away from zero), sqrt, log, exp, pow, is_nan, max(a, b), min(a, b),
// clamp(x, lo, hi), float32, int32; int, uint and double of a bool are 0 or 1. On lists: max, min, sum, mean, argmax (the
// first greatest), and double, float32, int, int32, uint of each element. bucket(x, [b0, b1, ...]) is the number of boundaries <= x.
// one_hot(x, ["a", "b"]) is a list of double with 1 at x's place, all 0 if it has none.
//
// Not run, and refused by Compile: maps, messages, optionals, comprehensions (all, exists, map, filter), lists of lists.
//
// # Bounds
//
// An expression has at most MaxSource characters, MaxDepth levels and MaxBrackets brackets within each other; a list that is computed at most 65,536 elements a
// row (max and the like read columns of any width); a text that + makes at most 1 MiB.
package expr
