// Command go asks a pipeline over NATS with nats.go alone: the client that docs/wire.md shows. It is run as
//
//	go run ./examples/clients/go NATS-URL PIPELINE FILE
//
// A file of rows goes out as one request, the answer's headers and body are printed. It imports nothing of Leat, so that
// it can be copied as it is.
package main
