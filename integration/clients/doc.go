// Package clients runs the clients of examples/clients against a real server, as a user would: the binary of cmd/leat, the
// model of examples/flights, Python from a virtual environment with nats-py alone, Go with nats.go alone. The client of
// Kafka asks the connector, on a real broker. It also checks that docs/wire.md shows the clients as they are, that
// docs/operations.md lists the metrics that a server shows, and that rules and dashboard of deploy ask for no others.
package clients
