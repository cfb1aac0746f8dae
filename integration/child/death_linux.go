package child

import "syscall"

// attributes make the kernel end the child when the test's process dies, so that a killed test leaves no server behind.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
