// Package kafka carries messages over Apache Kafka by github.com/segmentio/kafka-go: durable topics with groups,
// publishing, replay, request-reply, compacted topics that are followed, the logs of the lineage, and what follows from a record in one transaction with its
// offset.
//
// What flows through it: records, whose key is the message's key, whose headers are the message's, and whose value is
// the payload. A position's stream is the topic as the user names it, its sequence the offset + 1. Everything that is
// made or named in the cluster carries the configured prefix: topics, groups, transactional ids.
//
// Requests go to leat.score.<pipeline>, whose partitions the members of a group share, and are taken once. Answers go to
// leat.replies, of which each asking client reads one partition. A log is a topic of one partition, a subject the key.
//
// Of the library it uses the connections (TLS, SASL, versions) and the group protocol. Where to send, what to send and
// how to read what comes are its own: the library asks for every topic's metadata on a timer, waits for batches to fill,
// and hands out records of aborted transactions. Writes are idempotent, acknowledged by all in-sync replicas, and one
// request for each partition is on its way at a time, so that order is kept and a repeat stores nothing twice.
//
// It never looks into a payload, never changes a topic that is there, and folds nothing: Kafka has no message ids.
package kafka
