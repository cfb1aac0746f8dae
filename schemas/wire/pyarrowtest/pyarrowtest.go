package pyarrowtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// versions of pyarrow that the tests have run with. Python 3.9 and later find one of them.
const requirement = "pyarrow>=17,<27"

// Python returns a Python with pyarrow: LEAT_PYTHON, or a virtual environment in the user's cache folder that is made
// with python3 and pip when it is not there yet. The test fails if there can be none.
func Python(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("LEAT_PYTHON"); p != "" {
		return p
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "leat", "venv-test")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(dir + ".lock") // packages are tested at the same time
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(dir, "bin", "python")
	if exec.Command(python, "-c", "import pyarrow").Run() == nil {
		return python
	}
	run(t, "python3", "-m", "venv", "--clear", dir)
	run(t, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", requirement)
	return python
}

// Run runs a script that lies in testdata and returns what it prints.
func Run(t testing.TB, script string, args ...string) string {
	t.Helper()
	return run(t, Python(t), append([]string{script}, args...)...)
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
