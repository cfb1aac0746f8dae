// Package document reads the documents that people write for Leat: pipelines, a model's manifest, configuration. Bytes
// of YAML or JSON go in; out come a Go struct and every fault, each with its path, its line and what would be right.
//
// It is strict, because a document that is misread costs more than one that is refused: an unknown key, a key twice, a
// number where text belongs are faults, not guesses. It is bounded in bytes, depth and nodes, aliases expanded, so that
// a hostile document costs no more than a long one. It also writes the canonical JSON (RFC 8785) that digests are
// made of.
//
// It opens no file, keeps nothing, and knows no document in particular.
package document
