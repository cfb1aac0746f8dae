// Package badinput is the proof that bad input costs its sender one clear error and costs nobody else anything.
//
// One server takes a table of everything that can be wrong with a request, over HTTP, over NATS and over bare sockets:
// bodies, headers, lengths, schemas, names, deadlines, operations. For each case the test wants the right kind and
// status, one line that names the field where there is one and shows nothing of the server's inside, and a good request
// by the same door answered right after. At the end the process is the same one, its memory is bounded, and what it
// refused is counted.
package badinput
