// Package protorow reads one Protobuf message as one row. The .proto file that it was written with comes from elsewhere:
// see schemas/confluent.
//
// A column takes the field of its name, as the .proto file writes it. The name of a column with dots in it reaches into
// messages: "carrier.code" is the field code of the message carrier. A packed tensor takes a field for each of its
// features, or, like any tensor, one repeated field of its own name. Fields that nobody takes are passed over.
//
// A field without presence, which proto3 does not write when it is zero, is zero when it is absent. A field with presence
// (optional, a member of a oneof, any field of proto2) is null then, where the column is nullable, unless the file
// declares a default for it. google.protobuf.Timestamp is a timestamp, the wrappers of google.protobuf are their values
// or null. Enums are text, or numbers in columns of numbers. What no column can hold is refused where a column asks for
// it: messages, maps, repeated fields in columns that are no tensors. Numbers convert as schemas/internal/cells says.
//
// Bytes are taken for hostile; they are walked once, and the last value of a field counts, as Protobuf asks.
package protorow
