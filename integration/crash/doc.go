// Package crash is the proof that nothing accepted is lost and nothing is seen that is not recorded, across kill -9.
//
// A child `leat serve` is killed at random moments, drawn from a seed, under three loads at once: callers over NATS and
// HTTP, publishers whose events a pipeline scores from topic to topic, and jobs from a Parquet file to a file and to a
// topic. It starts again on the same data each round; some rounds end with SIGTERM, which must exit with 0, and some
// starts are killed twice before they are through. Then everything drains, and what callers and publishers saw (the
// evidence) is held against what the server has stored (the truth): see judge for the rules.
//
// Each fault that the rules are there for is planted in turn, in a binary built with the tag leatfault, and the test
// requires that its rule is broken. So the test can fail, and for the right reason.
//
//	go test ./integration/crash                  # 30 rounds, and the faults
//	go test ./integration/crash -rounds 300 -v   # make crash
//	go test ./integration/crash -seed 7 -run TestCrash
//
// Everything is asked from the outside: the API, NATS, files. Dead letters are read with the store's own credentials,
// as their operator would.
package crash
