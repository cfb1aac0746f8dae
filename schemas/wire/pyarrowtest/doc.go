// Package pyarrowtest gives tests a Python with pyarrow, so that what we write is read by somebody else's code.
package pyarrowtest
