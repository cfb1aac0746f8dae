package broker

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Main{M: m}) }

func answers(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// gone reports whether the process has ended.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestLife(t *testing.T) {
	var dir, lock string
	var pid int
	t.Run("cluster", func(t *testing.T) {
		c := Start(t, 1, Properties("message.max.bytes=2097152"))
		dir, lock = c.dir, c.ports.lock.Name()
		if !answers(c.Bootstrap()) {
			t.Fatal("does not answer")
		}
		c.Stop(t, 1)
		c.Cont(t, 1)
		c.Kill(t, 1)
		c.Up(t, 1)
		if !answers(c.Addr(1)) {
			t.Fatal("does not answer after it came back")
		}
		var err error
		if pid, err = c.Pid(1); err != nil || gone(pid) {
			t.Fatalf("process %d: %v", pid, err)
		}
		p, err := os.ReadFile(c.BrokerDir(1) + "/server.properties")
		if err != nil || !strings.Contains(string(p), "message.max.bytes=2097152") {
			t.Fatalf("%v: %s", err, p)
		}
	})
	eventually(t, "the end of the process", func() bool { return gone(pid) })
	for _, path := range []string{dir, lock} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}

// child makes TestDeath's second process start a broker and die.
const child = "LEAT_BROKER_TEST_CHILD"

// TestDeath: a test's process that dies without a word takes its brokers with it.
func TestDeath(t *testing.T) {
	if os.Getenv(child) != "" {
		c := Start(t, 1)
		os.Stdout.WriteString("CHILD " + c.dir + "\n")
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDeath$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	_, rest, ok := strings.Cut(string(out), "CHILD ")
	if err == nil || !ok {
		t.Fatalf("the child did not die as planned: %v\n%s", err, out)
	}
	dir, _, _ := strings.Cut(rest, "\n")
	eventually(t, "the end of "+dir, func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	eventually(t, "the end of its processes", func() bool { return exec.Command("pgrep", "-f", dir).Run() != nil })
}

// eventually polls, because what is waited for happens in processes that are no children of the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// TestMissing: what is not installed is named.
func TestMissing(t *testing.T) {
	bin := t.TempDir()
	for _, tool := range []string{"bash", "id", "cat", "rm", "dirname", "mkdir", "flock", "rmdir"} {
		p, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(p, bin+"/"+tool); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	_, err := Launch(1)
	if err == nil || !strings.Contains(err.Error(), "java is not on the PATH") {
		t.Fatalf("%v", err)
	}
}
