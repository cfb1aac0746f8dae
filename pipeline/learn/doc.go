// Package learn turns the lineage of a pipeline into what its bandits know: it joins decisions with the feedback on them, in
// the order of the log, and folds the rewards.
//
// A Learner is a pure function of the log up to a position: no clock, no goroutine, no I/O. What flows in are the records of one
// bandit's decisions and the feedback of its pipeline, message by message; what flows out is a route.State and, for whoever
// starts later, a snapshot. So any number of processes that read the same log have the same states at the same positions, to the
// bit, and a state of the past can be made again.
package learn
