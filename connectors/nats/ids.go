package nats

import "strconv"

// shortID writes a counter.
func shortID(n uint64) string { return strconv.FormatUint(n, 36) }

// ackSubject is where the acknowledgement of message i in a round comes to.
func ackSubject(inbox string, i, round int) string {
	b := make([]byte, 0, len(inbox)+16)
	b = append(b, inbox...)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(round), 10)
	return string(b)
}

// ackIndex is the inverse; at is where the number starts.
func ackIndex(subject string, at int) (i, round int, ok bool) {
	if at >= len(subject) {
		return 0, 0, false
	}
	n, dash := 0, false
	for ; at < len(subject); at++ {
		switch c := subject[at]; {
		case c >= '0' && c <= '9':
			n = n*10 + int(c-'0')
		case c == '-' && !dash:
			i, n, dash = n, 0, true
		default:
			return 0, 0, false
		}
	}
	return i, n, dash
}
