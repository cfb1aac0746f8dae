// Package lineagetest proves that an appender and a reader of the lineage keep their word over the logs of a transport:
// Run is called by a test of each implementation of schemas.Logs with the real thing behind it.
//
// It checks what is read back against what was appended: every dtype and nulls, messages cut at their limit, duplicates
// folded, full streams, appends whose outcome is unknown, withheld columns, exports, pruning, recovery and refusals. It
// plants its faults in front of the real log and never replaces it.
package lineagetest
