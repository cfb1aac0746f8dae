// Package control says what is live: which pipelines there are, in which revision, and what the aliases of models mean.
//
// What flows through it: a spec is applied, a model pushed, an alias moved; out come new revisions, which servers that
// watch load and answer with. Everybody who changes anything goes through here, as one of the operations that
// Operations lists.
//
// # One change at a time, all of it or nothing
//
// A change may touch many keys: an alias that moves makes a new revision of every pipeline that names it. The key
// control.change makes it one. Idle, it holds the number of the last change. A change is worked out from what is there
// and then written into that key, whole, by compare-and-set: that write is the decision. Whoever lost the race works
// his change out again. Then each key of the change is written by compare-and-set, the history is appended, and the key
// is set to idle. A process that dies in between leaves a decided change behind; the next one that wants to change
// anything, or Run, finishes it first. A process that was only slow and goes on later finds its compare-and-sets lost and
// does no harm: keys are never deleted but set to null, so that no old write can win again.
//
// Readers see a decided change at once and as a whole: a pending change is laid over what the keys hold.
//
// It loads no model and scores no row. It imports no store: KV, log and registry are handed over.
package control
