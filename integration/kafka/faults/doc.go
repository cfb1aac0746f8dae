// Package faults is the proof that what is promised on Kafka holds when brokers and servers die: kill -9 of leat serve at
// moments drawn from a seed; kill -9, freezing, slowness, a full disk, wrong clocks and loss of brokers, under load.
//
// Two pipelines score from topic to topic, one exactly once and one at least once, fed by a producer that is not ours
// (franz-go), while callers ask over HTTP and over Kafka; the lineage is on Kafka. When the faults are over, everything drains without a
// restart, and the time that took is printed. Then what producers and callers saw (the evidence) is held against what the
// cluster has (the truth, read committed by franz-go) and against the lineage that the API tells: see judge for the rules.
//
// The fault that the rules are there for, an offset that is committed before its output is written, is planted in a
// binary built with the tag leatfault, and the test requires that its rule is broken.
//
//	go test ./integration/kafka/faults              # one broker
//	go test ./integration/kafka/faults -full -v     # three brokers too: make test-kafka
//	go test ./integration/kafka/faults -seed 7
package faults
