// Package schemas holds the words that every other package of Leat shares: the typed columns that rows travel in,
// the signature that says what a model takes and gives, the message that carries them, the place of a message in a
// stream, the kinds of error, and the strict pattern of names.
//
// What flows through it: a connector hands over a Message; a Codec appends its rows to a Batch; a scorer reads that
// Batch and fills another; a Codec turns the answer back into bytes.
//
// It imports no other package of this project, opens no connection, starts no goroutine and reads no clock.
package schemas
