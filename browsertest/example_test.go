package browsertest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// startExample builds the example and runs it until the test ends.
func startExample(t *testing.T) *host {
	t.Helper()
	program := filepath.Join(t.TempDir(), "example")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = "../example"
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop the example: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the example: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	_, origin, ok := strings.Cut(line, "http://")
	if err != nil || !ok {
		t.Fatalf("the example says %q, %v", line, err)
	}
	origin = "http://" + strings.TrimRight(origin, "/\n")
	return &host{origin: origin, base: origin + "/account"}
}

// The example's own pages are accessible, fit on a narrow screen, and show a
// mail whole.
func TestExample(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("RESET_TEST_SCREENSHOTS")
	h := startExample(t)
	b := newTab(t, h)
	look := func(name string) {
		t.Helper()
		for _, look := range []struct {
			name, scheme string
			width        int64
		}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", 320}, {"narrow-dark", "dark", 320}} {
			b.setLook(look.scheme, look.width)
			at := name + "-" + look.name
			b.capture(folder, filepath.Join("example", at+".png"), look.width, 800)
			if got := evaluate[int64](b, "document.documentElement.scrollWidth"); got > look.width {
				t.Errorf("%s: %d pixels wide", at, got)
			}
			for _, f := range b.findings(pageRules) {
				t.Errorf("%s: %s (%s, %s): %q", at, f.Help, f.ID, f.Impact, f.Where)
			}
			const hidden = `[...document.querySelectorAll("iframe.html")].map((f) => {
				const root = f.contentDocument.documentElement;
				return Math.max(root.scrollHeight - f.clientHeight, root.scrollWidth - f.clientWidth);
			})`
			if name == "mail" {
				if got := evaluate[[]int](b, hidden); len(got) != 1 || got[0] > 0 {
					t.Errorf("%s: of the mail are hidden %d pixels", at, got)
				}
			}
		}
		b.setLook("light", 1280)
	}

	b.open(h.origin)
	look("start")
	b.click(`form[action="/account/forgot"] button`)
	b.wantPage(pageSent)
	b.open(h.origin)
	value(b, chromedp.Poll[bool](`!!document.querySelector("iframe.html")?.contentDocument?.querySelector("a.button")`))
	look("mail")
	for _, name := range []string{"login", "signup"} {
		b.open(h.origin + "/" + name)
		look(name)
	}
	b.open(h.origin + "/login")
	b.write("#email", alice)
	b.write("#password", "wrong")
	b.click("main button")
	look("login-wrong")
	b.open(h.origin)
	b.click(`form[action="/login"] button`)
	for _, name := range []string{"sessions", "password"} {
		b.open(h.origin + "/" + name)
		look(name)
	}
	b.open(h.origin)
	look("home")
}
