package main

import (
	"os"
	"os/exec"
	"syscall"
)

// canBeElsewhere says whether a run can be made to believe that it is on another machine.
func canBeElsewhere() bool { return os.Getuid() == 0 }

// moveElsewhere gives the process a numbering of processes of its own, as a container has: whoever is outside cannot tell by
// its number whether it lives, and has to listen.
func moveElsewhere(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
}
