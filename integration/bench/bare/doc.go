// Package bare is kafka-go as those use it who know it: the client that asks both sides over Kafka, and the floors, stand
// on it and on nothing of Leat's.
//
// Of the library it takes Client.Produce and Client.Fetch, which wait for nothing but the broker: its Writer and Reader
// have timers. Everything is acknowledged by all in-sync replicas.
package bare
