package main

import "golang.org/x/sys/unix"

// pinToProcessor keeps this process on one processor, if the system lets it.
func pinToProcessor(n int) {
	var set unix.CPUSet
	set.Set(n)
	_ = unix.SchedSetaffinity(0, &set)
}
