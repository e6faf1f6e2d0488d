// Package failpoint names the moments at which a crash would hurt most, so that
// tests can crash there. Nothing outside this repository's modules can import
// it. Unless a test arms it, Hit does nothing.
package failpoint

import "sync/atomic"

var hook atomic.Pointer[func(name string)]

// Hit marks that the program has reached a moment.
func Hit(name string) {
	if f := hook.Load(); f != nil {
		(*f)(name)
	}
}

// Arm makes Hit call f, which must be safe for concurrent use. A nil f disarms
// it.
func Arm(f func(name string)) {
	if f == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&f)
}
