// Package avrorow reads one Avro datum, a record in binary form, as one row. The schema that it was written with comes
// from elsewhere: see schemas/confluent.
//
// A column takes the field of its name. The name of a column with dots in it reaches into nested records: "carrier.code"
// is the field code of the record carrier. A packed tensor takes a field for each of its features, or, like any tensor,
// one array of its own name, nested or flat. Fields that nobody takes are passed over, absent and null ones are null
// where the column is nullable.
//
// Avro types convert as schemas/internal/cells says. Enums are text. timestamp-millis, -micros and -nanos are timestamps,
// and so are date and the local timestamps, taken for UTC. Of a union counts the branch that was written. What no column
// can hold is refused where a column asks for it: records and maps, decimal, duration and times of day.
//
// Avro of a schema is the bytes of its values and nothing else, so that a decoder is a walk over both. Bytes are taken
// for hostile: every length is checked against what is left, values without bytes are counted, depth is limited.
package avrorow
