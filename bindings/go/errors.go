package libnbd

// #include "support.h"
import "C"

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"
)

// A LibnbdError is why a call failed. errors.Is compares it with the values of syscall.Errno.
type LibnbdError struct {
	Op     string        // the function, without nbd_
	Errmsg string        // what the library says
	Errno  syscall.Errno // 0 if there is none
}

func (e *LibnbdError) String() string {
	// The library's own messages begin with the function.
	if e.Op == "" || strings.HasPrefix(e.Errmsg, "nbd_") {
		return e.Errmsg
	}
	return fmt.Sprintf("%s: %s", e.Op, e.Errmsg)
}

func (e *LibnbdError) Error() string {
	return e.String()
}

// Unwrap gives errors.Is and errors.As the number.
func (e *LibnbdError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// failed is what C says about a call.
func failed(op string, why C.struct_libnbd_go_why) *LibnbdError {
	message := "out of memory"
	if why.message != nil {
		message = C.GoString(why.message)
		C.free(unsafe.Pointer(why.message))
	}
	return &LibnbdError{op, message, syscall.Errno(why.code)}
}

// refused is a call that does not come to C.
func refused(op string, errno syscall.Errno, format string, values ...interface{}) *LibnbdError {
	why := fmt.Sprintf(format, values...)
	return &LibnbdError{op, fmt.Sprintf("nbd_%s: %s: %v", op, why, errno), errno}
}

func isClosed(op string) *LibnbdError {
	return refused(op, syscall.EBADF, "handle is closed")
}
