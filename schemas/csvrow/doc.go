// Package csvrow reads CSV lines without a header, as producers write them to topics: one row a line, RFC 4180 quoting,
// a comma between cells. A message holds one line, or several.
//
// The cells are the columns in the order of the schema, or as a list of names says; a name that the schema does not have
// is passed over with its cell. A packed tensor whose elements have feature names takes a cell for each feature, another
// tensor one for each element, in row-major order.
//
// An empty cell is null where the column is nullable; in a column of text one that is quoted is an empty string, and so
// is every empty cell of a text column that is not nullable. Numbers are written as in JSON, at the column's dtype; the
// words NaN, Infinity and inf with either sign are taken for floats, true, false, 1 and 0 in the usual spellings for
// booleans. Timestamps are RFC 3339 or integer nanoseconds, binary is base64.
//
// Bytes are taken for hostile. A line that cannot be a row is refused alone; broken quoting, after which nobody knows
// where a line ends, is a failure of the whole message.
package csvrow
