//go:build !linux

package main

import (
	"os"
	"os/exec"
	"strconv"
)

func divideProcessors() {}

// startOn starts a Go program that uses n processors.
func startOn(n int, cmd *exec.Cmd) error {
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(n))
	return cmd.Start()
}
