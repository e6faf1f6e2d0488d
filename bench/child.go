package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// A child is a server in a process of its own.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
}

// start runs a server until stop.
func (b *bench) start(ctx context.Context, c server) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	args := []string{"-serve", string(config)}
	if c.Kind == "pocketbase" {
		if program, err = b.buildPocketBase(ctx); err != nil {
			return nil, err
		}
		args = []string{c.DB + pocketBaseSuffix, c.SMTP, strconv.Itoa(c.Users)}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(max(1, c.Processors), cmd); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("server %s did not start: %w", c.Kind, errors.Join(err, cmd.Wait()))
	}
	go io.Copy(io.Discard, stdout)
	return &child{cmd, stdin, strings.TrimSpace(addr)}, nil
}

func (c *child) stop() error {
	c.stdin.Close()
	return c.cmd.Wait()
}

// deliver lets a server that was started idle send its mail.
func (c *child) deliver() error {
	response, err := http.Post("http://"+c.addr+"/bench/run", "", nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// expired returns how many expired mails and activations the server has.
func (c *child) expired() (n int, err error) {
	response, err := http.Get("http://" + c.addr + "/bench/expired")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = fmt.Fscan(response.Body, &n)
	return n, err
}

// resident returns the memory of the server in MB, where Linux says it.
func (c *child) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.cmd.Process.Pid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errNotHere
	}
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	return float64(pages*os.Getpagesize()) / 1e6, err
}

const (
	pocketBaseDir    = "bench/pocketbase" // its module, seen from the repository
	pocketBaseSuffix = ".pocketbase"      // of its database
)

// buildPocketBase returns the program, which it builds once.
func (b *bench) buildPocketBase(ctx context.Context) (string, error) {
	program := filepath.Join(b.dir, "pocketbase")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if _, err := os.Stat(pocketBaseDir); err != nil {
		return "", fmt.Errorf("run the bench from the root of the repository: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	cmd.Dir, cmd.Stderr = pocketBaseDir, os.Stderr
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build PocketBase: %w", err)
	}
	return program, nil
}
