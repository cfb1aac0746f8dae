// Package registry keeps models: named, in immutable numbered versions, each named by the digest of what is in it.
//
// A push brings files, as a folder, a tar or one bare file. The files are checked for names and size, the manifest is
// read or made, the loader of its runtime prepares and probes the model, and only then is anything stored: the files as
// blobs, and one record under the next free number. Readers get a package back whose every byte was verified.
//
// It knows no alias, no pipeline and no job: who uses a version is for pipeline/control to say, which asks before it
// deletes. It never fetches a model from anywhere by itself, never follows a link, and writes no file of a model but
// into its cache and a temporary folder that it removes.
package registry
