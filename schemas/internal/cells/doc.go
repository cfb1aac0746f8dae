// Package cells turns named values into rows of typed columns: what csvrow, avrorow and protorow share. A decoder sets
// the cell of each field that the model takes, in any order, and may set it again; AppendTo then converts the cells to
// their columns' types and fills what was left out.
//
// Numbers convert as native JSON's do, by value: an integer out of range is refused, a float takes the number nearest to
// it, and one that would become infinite is refused. A float becomes an integer if it is whole, a boolean becomes 0 or 1
// in a column of numbers, text becomes a timestamp if it is RFC 3339, an integer if it is meant as nanoseconds. Nothing
// else becomes anything else.
//
// Text and bytes in cells alias what they were read from: nothing is copied before it is in a column, and a Row that is
// reused allocates nothing.
package cells
