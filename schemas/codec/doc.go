// Package codec is the table of content types and formats: which codec reads a message. It is the one package that knows
// all of them; it looks at the headers and at the first names of a JSON document, and never reads rows itself.
//
// A request says by its Content-Type what it is, and is JSON without one: For. A record of a topic may come from anybody,
// and what it is without a Content-Type the pipeline says by its input.format: Set.For.
package codec
