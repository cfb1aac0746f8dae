// Package broker gives tests and benchmarks a real Apache Kafka: a cluster of one to nine brokers on loopback, whose members can be
// killed, started again, frozen and thawed. It drives kafka-dev.sh of the folder above.
//
// A start takes some seconds, so a test binary shares one broker where it can (Shared, Main); a test that does harm to
// brokers starts its own cluster (Start). Ports are free ones below the range that the system gives to clients, held by
// a lock for as long as the brokers live, so test binaries beside each other do not collide. A small shell waits for the
// end of the test's process, however it ends, then kills the brokers and removes their data.
//
// Where java (or, for the first start, mvn) is missing, tests fail with one line that says what to install. No package of
// the product imports this one.
package broker
