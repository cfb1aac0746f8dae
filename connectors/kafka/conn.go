package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// conn is a connection that Close can cut: the library would wait for the answer that is outstanding on it. It looks at
// the first bytes that come: the library takes those of any server for Kafka's, and then for counts of what to allocate.
type conn struct {
	net.Conn
	c       *Client
	checked bool
	head    []byte // that was looked at and not handed on yet
}

// Read implements net.Conn.
func (k *conn) Read(b []byte) (int, error) {
	if !k.checked {
		var head [4]byte
		if _, err := io.ReadFull(k.Conn, head[:]); err != nil {
			return 0, err
		}
		if err := checkFirst(head[:]); err != nil {
			return 0, err
		}
		k.checked, k.head = true, head[:]
	}
	if len(k.head) > 0 {
		n := copy(b, k.head)
		k.head = k.head[n:]
		return n, nil
	}
	return k.Conn.Read(b)
}

// Close implements net.Conn.
func (k *conn) Close() error {
	k.c.mu.Lock()
	delete(k.c.mu.conns, k)
	k.c.mu.Unlock()
	return k.Conn.Close()
}

// maxFirst is far more than a broker's list of what it can do takes.
const maxFirst = 1 << 20

// errWantsTLS is what a TLS alert in answer to plaintext means.
var errWantsTLS = errors.New("the broker expects TLS on this port: set kafka.tls")

// checkFirst refuses the beginning of what is no answer of a broker.
func checkFirst(head []byte) error {
	if head[0] == 0x15 && head[1] == 3 { // an alert, of some version 3
		return errWantsTLS
	}
	if n := binary.BigEndian.Uint32(head); n > maxFirst {
		return fmt.Errorf("what answers there is no Kafka broker: it begins with %q", head)
	}
	return nil
}
