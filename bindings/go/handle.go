// Package libnbd is a client of the Network Block Device protocol: the interface of libnbd 1.24 for
// Go, over the C library libnbd.so.0.
//
//	h, err := libnbd.Create()
//	if err != nil {
//		panic(err)
//	}
//	defer h.Close()
//	if err = h.ConnectUri("nbd://localhost"); err != nil {
//		panic(err)
//	}
//	size, err := h.GetSize()
//
// Each function nbd_x of C is a method X; the manual pages nbd_x(3) say what it does. Methods fail
// with a *LibnbdError. Arguments that may be left out are fields of a struct XOptargs, with a field
// beside each that says whether it is Set; nil leaves all of them out.
//
// Any goroutine may use any handle. Calls on one handle wait for each other, but not for one that
// sleeps in Poll, Poll2 or a call that waits for the server. A call that waits occupies a thread.
package libnbd

//go:generate go run ./internal/generate

// #include "support.h"
import "C"

import (
	"runtime"
	"sync/atomic"
)

// A Libnbd is a handle: one connection. Create makes it. It is closed by Close, or when it is
// garbage.
type Libnbd struct {
	in *inner
}

// What is behind a handle. Callbacks know it, and not the Libnbd.
type inner struct {
	nbd *C.struct_nbd_handle
	// How many calls are under way, and the two bits below.
	state    atomic.Int64
	panicked atomic.Pointer[thrown]
}

const (
	// No new calls.
	closed = 1 << 62
	// The C handle is freed, or given up.
	gone = 1 << 61
)

// What a callback panicked with.
type thrown struct {
	value interface{}
}

// Create makes a handle that is not connected yet.
func Create() (*Libnbd, error) {
	got := C.libnbd_go_create()
	if got.value == nil {
		return nil, failed("create", got.why)
	}
	h := &Libnbd{&inner{nbd: got.value}}
	// Closing may wait for a server to end: not in the goroutine of all finalizers.
	runtime.SetFinalizer(h, func(h *Libnbd) { go h.in.close() })
	return h, nil
}

// Close ends the connection and frees what the handle has. Methods fail from then on, Close itself,
// too. While calls are under way in other goroutines, or Close is called by a callback, the end
// comes with the return of the last of these calls.
//
// The type of the result is what it is in libnbd: to keep it in a variable of the type error, compare
// it with nil first.
func (h *Libnbd) Close() *LibnbdError {
	if h.in == nil || !h.in.close() {
		return isClosed("close")
	}
	runtime.SetFinalizer(h, nil)
	return nil
}

// enter begins a call: the C handle stays until leave.
func (h *Libnbd) enter(op string) (*C.struct_nbd_handle, *LibnbdError) {
	if h.in == nil {
		return nil, isClosed(op)
	}
	if h.in.state.Add(1)&closed != 0 {
		h.in.leave()
		return nil, isClosed(op)
	}
	return h.in.nbd, nil
}

// leave ends a call. It keeps h alive so long.
func (h *Libnbd) leave() {
	h.in.leave()
	h.in.rethrow()
}

func (in *inner) leave() {
	if in.state.Add(-1) == closed {
		in.settle()
	}
}

// close is true the first time.
func (in *inner) close() bool {
	if !in.mark(closed) {
		return false
	}
	in.settle()
	in.rethrow()
	return true
}

// settle frees the C handle if nobody is in there. Closer and last user may both come here.
func (in *inner) settle() {
	if in.state.CompareAndSwap(closed, closed|gone) {
		C.nbd_close(in.nbd)
	}
}

// mark sets bits, unless the handle is closed.
func (in *inner) mark(bits int64) bool {
	for {
		was := in.state.Load()
		if was&closed != 0 {
			return false
		}
		if in.state.CompareAndSwap(was, was|bits) {
			return true
		}
	}
}

// abandon gives the C handle up: a call was left in the middle.
func (in *inner) abandon() {
	for {
		was := in.state.Load()
		if in.state.CompareAndSwap(was, was|closed|gone) {
			return
		}
	}
}

// threw keeps what a callback panicked with; the first one of several.
func (in *inner) threw(value interface{}) {
	in.panicked.CompareAndSwap(nil, &thrown{value})
}

// rethrow panics as a callback did.
func (in *inner) rethrow() {
	if in.panicked.Load() == nil {
		return
	}
	if thrown := in.panicked.Swap(nil); thrown != nil {
		panic(thrown.value)
	}
}
