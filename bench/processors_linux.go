package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// The processors that this process was given: all of them, the one that servers
// have, and the others, unless there is but one.
var allProcessors, forServers, forClients unix.CPUSet

// divideProcessors keeps this process off the processor of the servers, if the
// system lets it.
func divideProcessors() {
	if unix.SchedGetaffinity(0, &allProcessors) != nil || allProcessors.Count() < 2 {
		return
	}
	forClients = allProcessors
	for n := 0; forServers.Count() == 0; n++ {
		if allProcessors.IsSet(n) {
			forServers.Set(n)
			forClients.Clear(n)
		}
	}
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, thread := range threads {
		if id, err := strconv.Atoi(filepath.Base(thread)); err == nil {
			unix.SchedSetaffinity(id, &forClients)
		}
	}
}

// startOn starts a Go program that uses n processors: one is the servers', more
// are any.
func startOn(n int, cmd *exec.Cmd) error {
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(n))
	if forClients.Count() == 0 {
		return cmd.Start()
	}
	set := &forServers
	if n > 1 {
		set = &allProcessors
	}
	// A process has the processors of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.SchedSetaffinity(0, set)
	defer unix.SchedSetaffinity(0, &forClients)
	return cmd.Start()
}
