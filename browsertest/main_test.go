// Package browsertest walks through the pages in a real browser. It needs
// Chromium (or Chrome) and axe-core:
//
//	npm ci --prefix browsertest
//	RESET_TEST_BROWSER=/usr/bin/chromium go test ./browsertest
//
// Without RESET_TEST_BROWSER it takes what it finds in PATH. With
// RESET_TEST_SCREENSHOTS=DIR it leaves pictures of all pages and mails there.
// The README's pictures, in docs, are made by TestPictures alone:
//
//	RESET_TEST_SCREENSHOTS=../docs go test -count=1 -run TestPictures ./browsertest
package browsertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

const howTo = `needs Chromium and axe-core. To run it:

	npm ci --prefix browsertest
	RESET_TEST_BROWSER=/path/to/chromium go test ./browsertest

	RESET_TEST_BROWSER can be left out where chromium, chromium-browser or
	google-chrome is in PATH.`

var (
	browser context.Context // of the one browser process; tests have contexts of their own in it
	axe     string          // the source of axe-core
)

// TestMain says that nothing was tested where nothing was: go test shows the
// skips of a package that passes only with -v.
func TestMain(m *testing.M) {
	path, err := prepare()
	switch {
	case err == nil:
		os.Exit(run(m, path))
	case os.Getenv("CI") == "true":
		fmt.Printf("browsertest: %v\nbrowsertest %s\n", err, howTo)
		os.Exit(1)
	default:
		fmt.Println("testing: warning: no tests to run") // go test adds it to its summary
		fmt.Printf("browsertest: %v\nbrowsertest %s\n", err, howTo)
		os.Exit(0)
	}
}

// prepare returns the path of the browser.
func prepare() (string, error) {
	source, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		return "", fmt.Errorf("no axe-core: %w", err)
	}
	axe = string(source)
	if path := os.Getenv("RESET_TEST_BROWSER"); path != "" {
		return exec.LookPath(path)
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no browser in PATH")
}

// run runs the tests in a browser with a fresh profile that goes nowhere by
// itself.
func run(m *testing.M, path string) int {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.DisableGPU,
		chromedp.IgnoreCertErrors, // of the tests' own servers
		chromedp.Flag("accept-lang", "en"),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	)
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	var cancel context.CancelFunc
	browser, cancel = chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(browser); err != nil {
		fmt.Printf("browsertest: start %s: %v\n", path, err)
		return 1
	}
	return m.Run()
}
