// Package lookup holds tables of features in memory, so that a route finds the features of a key without asking anybody.
//
// A table is the newest value of each key of a NATS KV bucket or a compacted Kafka topic, as far as its columns are read:
// JSON objects and Arrow streams of one row come in by a Follower, which watches the source; rows of typed columns go out.
// It is complete before anybody sees it, and fresh as the source's watch is. All who read the same columns of the same source
// share one table (Tables counts them), and the last one to leave ends it.
//
// Readers take no lock and make no garbage: one goroutine writes a table, rows are immutable, and a slot of the index is an
// atomic pointer to one. What cannot be read, or would take more memory than the process may spend on tables, is a key
// that is not there, counted and logged: an old value never stands in the place of a new one.
//
// It writes to no source, keeps nothing on disk, and knows no route.
package lookup
