package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/kafka"
)

// Cluster is a running Kafka of n brokers, counted from 1. It is safe for concurrent use, except that a broker is
// killed, started, stopped and continued by one goroutine at a time.
type Cluster struct {
	n     int
	dir   string // script, data and logs; removed at the end
	env   []string
	ports *ports
	disks []string // mounted for brokers
	guard *exec.Cmd
	leash *os.File // the guard cleans up when this end is closed, by Close or by the death of the process
	once  sync.Once
}

// Option changes what Start starts.
type Option func(*options)

type options struct {
	dir    string
	lines  []string
	jvm    string
	heap   string
	secure bool
	clocks []string
	disks  map[int]string
}

// Properties adds lines to every broker's server.properties; a later line goes before an earlier one of the same name.
func Properties(lines ...string) Option {
	return func(o *options) { o.lines = append(o.lines, lines...) }
}

// Dir makes the cluster's folder below dir instead of the system's folder for temporary files.
func Dir(dir string) Option { return func(o *options) { o.dir = dir } }

// JVM sets the flags of the brokers' Java machine. The default starts fast and runs at half the speed: benchmarks take
// "-XX:+UseG1GC -XX:MaxGCPauseMillis=20".
func JVM(flags string) Option { return func(o *options) { o.jvm = flags } }

// Heap sets the heap of each broker, as Java writes it ("256m").
func Heap(size string) Option { return func(o *options) { o.heap = size } }

// Clock sets broker i's clock off, as faketime(1) takes it ("+45m", "-45m"). It needs faketime.
func Clock(i int, off string) Option {
	return func(o *options) { o.clocks = append(o.clocks, fmt.Sprintf("LEAT_KAFKA_CLOCK_%d=%s", i, off)) }
}

// Disk gives broker i a disk of its own of a size, as mount(8) takes it ("200m"): see Fill. Only root may mount.
func Disk(i int, size string) Option {
	return func(o *options) {
		if o.disks == nil {
			o.disks = map[int]string{}
		}
		o.disks[i] = size
	}
}

// Start starts a cluster of n brokers that ends with the test.
func Start(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c, err := Launch(n, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Launch starts a cluster of n brokers for programs that are no tests. Whoever launched it closes it.
func Launch(n int, opts ...Option) (_ *Cluster, err error) {
	if n < 1 || n > 9 {
		return nil, fmt.Errorf("broker: %d brokers: want 1 to 9", n)
	}
	var o options
	for _, f := range opts {
		f(&o)
	}
	dir, err := os.MkdirTemp(o.dir, "leat-kafka-")
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	c := &Cluster{n: n, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.end())
		}
	}()
	for _, name := range []string{"kafka-dev.sh", "pom.xml"} {
		b, err := fs.ReadFile(kafka.Files, name)
		if err != nil {
			return nil, fmt.Errorf("broker: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o700); err != nil {
			return nil, fmt.Errorf("broker: %w", err)
		}
	}
	if c.ports, err = reserve(n); err != nil {
		return nil, err
	}
	for i, size := range o.disks {
		if err := c.mount(i, size); err != nil {
			return nil, err
		}
	}
	if o.secure {
		more, err := secure(dir)
		if err != nil {
			return nil, err
		}
		o.lines = append(more, o.lines...)
	}
	props := filepath.Join(dir, "extra.properties")
	if err := os.WriteFile(props, []byte(strings.Join(o.lines, "\n")+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	c.env = append(os.Environ(),
		"LEAT_KAFKA_DIR="+filepath.Join(dir, "cluster"), "LEAT_KAFKA_PORT="+strconv.Itoa(c.ports.first),
		"LEAT_KAFKA_PROPS="+props, "LEAT_KAFKA_WAIT=120")
	if o.jvm != "" {
		c.env = append(c.env, "LEAT_KAFKA_JAVA="+o.jvm)
	}
	if o.heap != "" {
		c.env = append(c.env, "LEAT_KAFKA_HEAP="+o.heap)
	}
	c.env = append(c.env, o.clocks...)
	if err := c.watch(); err != nil {
		return nil, err
	}
	return c, c.script("start", strconv.Itoa(n))
}

// watch starts the shell that cleans up. It holds the lock of the ports until the brokers are gone, is in a session of
// its own, so that an interrupt from the terminal does not end it, and writes nowhere, so that go test does not wait for
// it.
func (c *Cluster) watch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	defer r.Close()
	const clean = `cat >/dev/null; for d in "${@:3}"; do umount -l "$d"; done; bash "$1/kafka-dev.sh" wipe; rm -rf "$1" "$2"`
	c.guard = exec.Command("bash", append([]string{"-c", clean, "kafka-guard", c.dir, c.ports.lock.Name()}, c.disks...)...)
	c.guard.Env, c.guard.Stdin = c.env, r
	c.guard.ExtraFiles = []*os.File{c.ports.lock}
	c.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.guard.Start(); err != nil {
		w.Close()
		c.guard = nil
		return fmt.Errorf("broker: %w", err)
	}
	c.leash = w
	return nil
}

// end kills the brokers and removes their data.
func (c *Cluster) end() error {
	if c.guard == nil {
		for _, d := range c.disks {
			_ = exec.Command("umount", "-l", d).Run()
		}
		return os.RemoveAll(c.dir)
	}
	c.leash.Close()
	err := c.guard.Wait()
	c.ports.lock.Close()
	return err
}

// Close kills the brokers and removes their data. It may be called again.
func (c *Cluster) Close() {
	c.once.Do(func() {
		if err := c.end(); err != nil {
			fmt.Fprintln(os.Stderr, "broker: cleaning up "+c.dir+":", err)
		}
	})
}

// script runs kafka-dev.sh; its error is the one line that the script says.
func (c *Cluster) script(args ...string) error {
	cmd := exec.Command("bash", append([]string{filepath.Join(c.dir, "kafka-dev.sh")}, args...)...)
	var out bytes.Buffer
	cmd.Env, cmd.Stderr = c.env, &out
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return fmt.Errorf("broker: %s: %s (%w)", strings.Join(args, " "), lines[len(lines)-1], err)
	}
	return nil
}

// Bootstrap returns host:port of all brokers, separated by commas: plaintext, no credentials.
func (c *Cluster) Bootstrap() string { return strings.Join(c.Addrs(), ",") }

// Addrs returns host:port of each broker.
func (c *Cluster) Addrs() []string {
	out := make([]string, c.n)
	for i := range out {
		out[i] = c.Addr(i + 1)
	}
	return out
}

// Addr returns host:port of broker i.
func (c *Cluster) Addr(i int) string { return c.addr(i, 0) }

func (c *Cluster) addr(i, port int) string {
	return "127.0.0.1:" + strconv.Itoa(c.ports.first+10*(i-1)+port)
}

// N returns the number of brokers.
func (c *Cluster) N() int { return c.n }

// Kill ends broker i as kill -9 does.
func (c *Cluster) Kill(t testing.TB, i int) {
	t.Helper()
	if err := c.script("kill", strconv.Itoa(i)); err != nil {
		t.Fatal(err)
	}
}

// Up starts broker i again on its old data and returns when it is ready.
func (c *Cluster) Up(t testing.TB, i int) {
	t.Helper()
	if err := c.script("up", strconv.Itoa(i)); err != nil {
		t.Fatal(err)
	}
}

// Revive starts every broker that does not run and returns when all are ready. After the loss of a majority it is the way
// back: one broker alone cannot become ready.
func (c *Cluster) Revive(t testing.TB) {
	t.Helper()
	if err := c.script("start", strconv.Itoa(c.n)); err != nil {
		t.Fatal(err)
	}
}

// Stop freezes broker i (SIGSTOP): its connections stand and nothing answers.
func (c *Cluster) Stop(t testing.TB, i int) {
	t.Helper()
	c.signal(t, i, syscall.SIGSTOP)
	pid, err := c.Pid(i)
	for err == nil && !frozen(pid) {
		time.Sleep(time.Millisecond) // until the last thread has come to rest
	}
	if err != nil {
		t.Fatal(err)
	}
}

// frozen reports whether all threads of a process stand still. Each of them goes on to its next turn after a SIGSTOP. Where
// there is no /proc, that is believed to be at once.
func frozen(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is good
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		// The state comes after the name, which is in parentheses and may hold any character.
		if state := b[bytes.LastIndexByte(b, ')')+1:]; len(state) < 2 || state[1] != 'T' {
			return false
		}
	}
	return true
}

// Cont thaws broker i.
func (c *Cluster) Cont(t testing.TB, i int) { t.Helper(); c.signal(t, i, syscall.SIGCONT) }

func (c *Cluster) signal(t testing.TB, i int, s syscall.Signal) {
	t.Helper()
	pid, err := c.Pid(i)
	if err == nil {
		err = syscall.Kill(pid, s)
	}
	if err != nil {
		t.Fatalf("broker %d: %v: %v", i, s, err)
	}
}

// Pid returns the process of broker i.
func (c *Cluster) Pid(i int) (int, error) {
	b, err := os.ReadFile(filepath.Join(c.BrokerDir(i), "pid"))
	if err != nil {
		return 0, fmt.Errorf("broker: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// BrokerDir is the folder of broker i: server.properties, broker.log, and its data in data.
func (c *Cluster) BrokerDir(i int) string {
	return filepath.Join(c.dir, "cluster", strconv.Itoa(i))
}

// Log returns what broker i has logged since it was last started.
func (c *Cluster) Log(i int) string {
	b, err := os.ReadFile(filepath.Join(c.BrokerDir(i), "broker.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
