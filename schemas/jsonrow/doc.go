// Package jsonrow is Leat's native JSON. A request is
//
//	{"rows": [{"distance": 1400, "carrier": "UA"}, ...]}
//	{"columns": {"distance": [1400, 200], "carrier": ["UA", "B6"]}}
//
// and may also carry "id", a string, and "parameters", an object that nothing is done with. The answer has the form of
// the request: {"id": .., "model": .., "version": .., "rows": [..]}, with "errors" if single rows failed.
//
// Every column of the schema is given once by its name; a nullable one may be left out. A tensor is an array, nested as
// its shape is or flat; one whose elements have feature names may be given element by element instead. Numbers are
// parsed at the column's dtype: integers out of range are refused, NaN and the infinities are the strings "NaN",
// "Infinity" and "-Infinity", 64-bit integers may be strings. Timestamps are RFC 3339 strings or integer nanoseconds,
// binary is base64. A name that is unknown, missing or given twice is an error that names row and field; of an event
// (AppendGood), which its producer describes and not the model, unknown names are passed over.
//
// An event may also be one row itself, {"distance": 1400, "carrier": "UA"}, as producers write that know nothing of us:
// it is, unless its first name, "id" and "parameters" aside, is "rows" with an array or "columns" with an object. The
// answer has the form of rows.
//
// Bytes are read in one pass into typed columns and taken for hostile: nesting is limited, and so is what nulls and
// absent fields may grow to. The caller limits the size of the payload. Nothing is kept and nothing read by reflection.
package jsonrow
