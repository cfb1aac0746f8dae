// Package files reads and writes rows in Parquet, Arrow IPC, NDJSON, JSON and CSV files: the bulk way in and out.
//
// What flows through it: arrow.Record batches of a fixed number of rows, never a whole file. A Reader knows its columns
// and their types before the first row; a Writer writes under a temporary name beside the target, syncs, and takes the
// target's name at Commit, so that a file of the target's name is always whole.
//
// Bulk jobs use Reader and Writer directly. A file is no stream of messages: it has no settlement and no redelivery, so
// the package implements none of the contracts of messages. What it promises instead is the claim Files of
// connectortest: rows in order and once, resumed at any row, in memory that does not grow with the file; written as a
// whole or not at all.
//
// It knows no models and no pipelines, fits no columns to a signature (schemas does), and never fetches from a network.
// Bytes of a file are not trusted: a panic of a decoding library becomes an Invalid error, and no single allocation
// follows a size in the file beyond a bound.
package files
