package broker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// The brokers' ports lie below those that Linux gives to outgoing connections (32768 and up): nobody takes the port of a
// broker that was killed and is to come back.
const (
	portFirst = 20000
	portLast  = 32000
	portStep  = 100 // room of one cluster: nine brokers, ten ports each
)

// ports is a reserved range. The lock is released when the last process that holds the file has closed it.
type ports struct {
	first int
	lock  *os.File
}

// reserve finds a range whose ports are free and locks it.
func reserve(n int) (*ports, error) {
	dir := filepath.Join(os.TempDir(), "leat-kafka-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	ranges := (portLast - portFirst) / portStep
	for _, i := range rand.Perm(ranges) {
		first := portFirst + i*portStep
		lock, err := tryLock(filepath.Join(dir, strconv.Itoa(first)))
		if err != nil {
			return nil, fmt.Errorf("broker: %w", err)
		}
		if lock == nil {
			continue
		}
		if free(first, n) {
			return &ports{first, lock}, nil
		}
		lock.Close()
	}
	return nil, fmt.Errorf("broker: no range of free ports between %d and %d", portFirst, portLast)
}

// tryLock returns nil if another process has the lock. The file is removed by its holder, so the one that was locked
// must still be the one that is there.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, nil
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	mine, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	there, err := os.Stat(path)
	if err != nil || !os.SameFile(mine, there) {
		f.Close()
		return nil, nil // its holder was just leaving
	}
	return f, nil
}

// free reports whether the first ports of all n brokers can be listened on.
func free(first, n int) bool {
	for b := range n {
		for p := range 6 {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first+10*b+p)))
			if err != nil {
				return false
			}
			l.Close()
		}
	}
	return true
}
