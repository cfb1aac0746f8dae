// Package shadows runs the product's binary as a primary and a shadow in processes of their own, does to the shadow's what can
// be done to a process, and looks at the answers of the primary: they are the same, byte for byte.
package shadows
