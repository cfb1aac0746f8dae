// Package ortlib finds, fetches and opens the shared library of ONNX Runtime.
//
// What flows through it: the places where the library may lie go in, a path comes out; Open makes that library the one of
// this process, once. Fetch brings the pinned version into the user's cache folder through pip, checks its SHA-256 and
// renames it into place.
//
// It never opens a library of another version than Version, never takes a cached file whose digest is not the pinned one,
// never reads the environment (cmd hands its values over), and never names a host: the package client knows where packages
// come from.
package ortlib
