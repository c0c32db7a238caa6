//go:build !linux

package process

import "syscall"

// child makes a process the head of a group of its own.
func child() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
