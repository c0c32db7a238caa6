package process

import "syscall"

// child makes a process the head of a group of its own that ends with the supervisor, however that ends.
func child() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
