package libnbd

// #include <libnbd.h>
import "C"

import "unsafe"

// Callbacks run in the goroutine whose call of the handle they belong to, before that call returns.
// They must not call methods of that handle: these fail with EDEADLK. Close is allowed, and happens
// when the call is over.
//
// To make a command fail, a callback sets *error and returns -1.
//
// A callback that panics makes its command fail. The call panics with the same value once C has
// cleaned up behind itself; if several goroutines use the handle at this time, any of their calls
// may be the one. A callback that ends its goroutine (runtime.Goexit, and so testing's FailNow)
// takes the handle with it: nobody knows what state C was left in, so the handle counts as closed
// and what it holds is not freed.

// A ChunkCallback gets a piece of a structured read: status is READ_DATA, READ_HOLE or READ_ERROR.
// subbuf is that part of the command's buffer and not a copy.
type ChunkCallback func(subbuf []byte, offset uint64, status uint, error *int) int

// A CompletionCallback gets the outcome of a command: *error is its errno, or 0. It returns 1 to
// have the command forgotten, or else AioCommandCompleted has to be called.
type CompletionCallback func(error *int) int

// A ContextCallback gets the name of a meta context.
type ContextCallback func(name string) int

// A DebugCallback gets a message, and the function that it comes from.
type DebugCallback func(context string, msg string) int

// An ExtentCallback gets extents of one meta context from offset on: pairs of length and flags.
type ExtentCallback func(metacontext string, offset uint64, entries []uint32, error *int) int

// An Extent64Callback gets extents of one meta context from offset on.
type Extent64Callback func(metacontext string, offset uint64, entries []LibnbdExtent, error *int) int

// A ListCallback gets the name and description of an export.
type ListCallback func(name string, description string) int

// A LibnbdExtent is a stretch of the disk, and what a meta context says about it.
type LibnbdExtent struct {
	Length uint64 // in bytes
	Flags  uint64
}

// A guard brings what a callback does back into C, whatever happens.
type guard struct {
	in       *inner
	finished bool
	code     *C.int
	error    int
}

// guarded begins a callback; without an error parameter, code is nil.
func guarded(id C.uintptr_t, code *C.int) (guard, interface{}) {
	callback, in := callbacks.get(uintptr(id))
	g := guard{in: in, code: code}
	if code != nil {
		g.error = int(*code)
	}
	return g, callback
}

// done is deferred: it has to be the one that recovers.
func (g *guard) done(answer *C.int) {
	if g.finished {
		if g.code != nil {
			*g.code = C.int(g.error)
		}
		return
	}
	*answer = -1
	if value := recover(); value != nil {
		g.in.threw(value)
		return
	}
	g.in.abandon()
}

// end takes what the callback returned.
func (g *guard) end(returned int) C.int {
	g.finished = true
	return C.int(returned)
}

//export libnbdGoFree
func libnbdGoFree(id C.uintptr_t) {
	callbacks.remove(uintptr(id))
}

//export libnbdGoChunk
func libnbdGoChunk(id C.uintptr_t, subbuf unsafe.Pointer, count C.size_t, offset C.uint64_t, status C.uint, code *C.int) (answer C.int) {
	g, callback := guarded(id, code)
	defer g.done(&answer)
	bytes := unsafe.Slice((*byte)(subbuf), int(count))
	return g.end(callback.(ChunkCallback)(bytes, uint64(offset), uint(status), &g.error))
}

//export libnbdGoCompletion
func libnbdGoCompletion(id C.uintptr_t, code *C.int) (answer C.int) {
	g, callback := guarded(id, code)
	defer g.done(&answer)
	return g.end(callback.(CompletionCallback)(&g.error))
}

//export libnbdGoContext
func libnbdGoContext(id C.uintptr_t, name *C.char) (answer C.int) {
	g, callback := guarded(id, nil)
	defer g.done(&answer)
	return g.end(callback.(ContextCallback)(C.GoString(name)))
}

//export libnbdGoDebug
func libnbdGoDebug(id C.uintptr_t, context *C.char, msg *C.char) (answer C.int) {
	g, callback := guarded(id, nil)
	defer g.done(&answer)
	return g.end(callback.(DebugCallback)(C.GoString(context), C.GoString(msg)))
}

// The entries are C's and gone when this returns: the callback gets a copy, and may keep it.

//export libnbdGoExtent
func libnbdGoExtent(id C.uintptr_t, context *C.char, offset C.uint64_t, entries *C.uint32_t, count C.size_t, code *C.int) (answer C.int) {
	g, callback := guarded(id, code)
	defer g.done(&answer)
	copied := append([]uint32{}, unsafe.Slice((*uint32)(entries), int(count))...)
	return g.end(callback.(ExtentCallback)(C.GoString(context), uint64(offset), copied, &g.error))
}

//export libnbdGoExtent64
func libnbdGoExtent64(id C.uintptr_t, context *C.char, offset C.uint64_t, entries *C.nbd_extent, count C.size_t, code *C.int) (answer C.int) {
	g, callback := guarded(id, code)
	defer g.done(&answer)
	copied := make([]LibnbdExtent, int(count))
	for i, entry := range unsafe.Slice(entries, int(count)) {
		copied[i] = LibnbdExtent{uint64(entry.length), uint64(entry.flags)}
	}
	return g.end(callback.(Extent64Callback)(C.GoString(context), uint64(offset), copied, &g.error))
}

//export libnbdGoList
func libnbdGoList(id C.uintptr_t, name *C.char, description *C.char) (answer C.int) {
	g, callback := guarded(id, nil)
	defer g.done(&answer)
	return g.end(callback.(ListCallback)(C.GoString(name), C.GoString(description)))
}
