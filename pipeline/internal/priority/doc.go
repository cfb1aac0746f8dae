// Package priority has the threads of background work (jobs, shadows) stand back behind those that somebody waits for. Go's
// own scheduler knows no priorities, and a core that is left free is not the only one that a request's threads may wake up on.
package priority
