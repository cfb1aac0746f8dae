package onnx

import "io/fs"

// OneFile is a file system of one file.
func OneFile(name string, data []byte) fs.FS { return oneFile{name, data} }
