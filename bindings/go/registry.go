package libnbd

// #include <stdint.h>
import "C"

import (
	"fmt"
	"reflect"
	"sync"
)

// C may not keep pointers of Go. It keeps a number instead, until it calls the callback's free: once,
// in every case, also if the call that took the callback fails.

// A registration is a callback, and the handle that it was given to. It does not keep the Libnbd
// alive, so that one that is forgotten can be closed although it has a callback for debugging.
type registration struct {
	callback interface{}
	in       *inner
}

// A registry is a table of the callbacks that C knows. Any goroutine may use it.
type registry struct {
	mutex sync.RWMutex
	last  uintptr
	known map[uintptr]registration
}

var callbacks = registry{known: map[uintptr]registration{}}

// put gives a callback its number; 0 for nil, which C gets as no callback.
func (r *registry) put(callback interface{}, in *inner) C.uintptr_t {
	if reflect.ValueOf(callback).IsNil() {
		return 0
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	// Where a pointer has 32 bits the numbers come round some day. Then those in use are passed
	// over; memory ends before there is none left.
	for used := true; used; {
		r.last++
		_, used = r.known[r.last]
		used = used || r.last == 0
	}
	r.known[r.last] = registration{callback, in}
	return C.uintptr_t(r.last)
}

// get finds a callback. C asks for one that it has freed only if it is broken.
func (r *registry) get(id uintptr) (interface{}, *inner) {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	found, there := r.known[id]
	if !there {
		panic(fmt.Sprintf("libnbd: the library calls the callback %d, which it has freed", id))
	}
	return found.callback, found.in
}

func (r *registry) remove(id uintptr) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.known, id)
}

// count is how many callbacks there are.
func (r *registry) count() int {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	return len(r.known)
}
