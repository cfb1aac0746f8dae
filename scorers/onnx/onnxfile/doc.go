// Package onnxfile reads and edits ONNX model files at the level of protobuf fields, with no generated code and no copy of
// the weights.
//
// A model's bytes go in; what goes out is its inputs, outputs and nodes, or the bytes of an edited model: without ZipMap,
// with external weights put inside, or with outputs that report the shapes of others.
//
// The bytes are hostile until proven otherwise: sizes, depth and references are bounded, every fault is an Invalid error,
// and nothing is read but through the given function. It never runs a model and never follows a path by itself.
//
// Field numbers are those of onnx.proto (ONNX 1.23, IR version 13).
package onnxfile
