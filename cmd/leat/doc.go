// Command leat is the one binary: the server (leat serve) and its client (every other command).
//
// This package wires: it alone knows all implementations, reads the environment, and decides what a process runs. It
// holds no rule of its own. serve.go and app.go build a server; each other file is one command, a client of the API.
package main
