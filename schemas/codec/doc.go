// Package codec is the table of content types: which codec reads a message. It is the one package that knows all of
// them; it looks at the headers and at the first names of a JSON document, and never reads rows itself.
package codec
