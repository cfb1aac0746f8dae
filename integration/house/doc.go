// Package house tests the shape of the tree: which package may import which, and which library lives where.
package house
