// Package jsonscan reads JSON in one pass, straight into typed columns: what jsonrow and oip share.
//
// A Scanner walks over the bytes of one document. Its methods say whether what they looked for was there; the first
// failure stays in the scanner as an Invalid error that says at which byte it is, and every later method fails too. It
// takes RFC 8259 strictly: no comments, no trailing commas, no bare NaN, no control characters in strings, UTF-8 only.
// Nesting is limited to MaxDepth.
//
// Numbers are parsed at the dtype of their column. It allocates nothing but for strings with escapes and for errors.
package jsonscan
