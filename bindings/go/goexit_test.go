//go:build !asan

package libnbd

// AddressSanitizer takes the C stack that is left behind here for one that is used.

import (
	"runtime"
	"syscall"
	"testing"
)

// What t.Fatal does in a callback.
func TestCallbackEndsItsGoroutine(t *testing.T) {
	h := connected(t, "memory", "1M")
	before := callbacks.count()
	ended := make(chan bool)
	go func() {
		defer close(ended)
		h.PreadStructured(make([]byte, 512), 0, func([]byte, uint64, uint, *int) int {
			runtime.Goexit()
			return 0
		}, nil)
		t.Error("it goes on")
	}()
	<-ended
	wants(t, h.Flush(nil), syscall.EBADF, "handle is closed")
	if err := h.Close(); err == nil {
		t.Error("it was not closed")
	}
	lost += callbacks.count() - before
}
