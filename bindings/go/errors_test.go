package libnbd

import (
	"errors"
	"reflect"
	"syscall"
	"testing"
)

func TestErrors(t *testing.T) {
	_, err := handle(t).GetSize()
	var found *LibnbdError
	if !errors.As(err, &found) {
		t.Fatalf("%T", err)
	}
	if found.Op != "get_size" || found.Errno != syscall.ENOTCONN || found.Error() != found.Errmsg {
		t.Errorf("%#v", found)
	}
	if !errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EINVAL) {
		t.Error("errors.Is")
	}
	for _, words := range []struct{ is, wanted string }{
		{(&LibnbdError{Op: "pread", Errmsg: "no"}).Error(), "pread: no"},
		{(&LibnbdError{Op: "pread", Errmsg: "nbd_pread: no"}).Error(), "nbd_pread: no"},
		{(&LibnbdError{Errmsg: "no"}).String(), "no"},
	} {
		if words.is != words.wanted {
			t.Error(words.is)
		}
	}
	if (&LibnbdError{Errmsg: "no"}).Unwrap() != nil {
		t.Error("an errno from nowhere")
	}
}

// zeroes calls every method with the zero values of its arguments, and tells what it returned.
func zeroes(h *Libnbd, each func(name string, err interface{}, out []reflect.Value)) {
	value := reflect.ValueOf(h)
	for i := 0; i < value.NumMethod(); i++ {
		method := value.Method(i)
		var in []reflect.Value
		for j := 0; j < method.Type().NumIn(); j++ {
			in = append(in, reflect.Zero(method.Type().In(j)))
		}
		out := method.Call(in)
		each(value.Type().Method(i).Name, out[len(out)-1].Interface(), out)
	}
}

func TestClosed(t *testing.T) {
	closed := handle(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Libnbd{closed, {}} {
		methods := 0
		zeroes(h, func(name string, err interface{}, out []reflect.Value) {
			methods++
			found, is := err.(*LibnbdError)
			if !is || found == nil || found.Errno != syscall.EBADF {
				t.Errorf("%s: %v", name, err)
			}
			if len(out) == 2 && !out[0].IsZero() {
				t.Errorf("%s returned %v, too", name, out[0])
			}
		})
		// 165 functions, without nbd_create, nbd_get_error and nbd_get_errno.
		if methods != 162 {
			t.Errorf("%d methods", methods)
		}
	}
}

// Nothing crashes on a handle that is not connected, without arguments worth the name: callbacks,
// slices and buffers are nil.
func TestZeroes(t *testing.T) {
	h := handle(t)
	before, failures := callbacks.count(), 0
	skipped := map[string]bool{
		// It takes descriptor 0 from the process, and this one closes the handle.
		"ConnectSocket": true, "AioConnectSocket": true, "Close": true,
	}
	value := reflect.ValueOf(h)
	for i := 0; i < value.NumMethod(); i++ {
		name := value.Type().Method(i).Name
		if skipped[name] {
			continue
		}
		// A handle that failed to connect is dead, and answers to less.
		zero := reflect.ValueOf(handle(t)).MethodByName(name)
		var in []reflect.Value
		for j := 0; j < zero.Type().NumIn(); j++ {
			in = append(in, reflect.Zero(zero.Type().In(j)))
		}
		out := zero.Call(in)
		if err, failed := out[len(out)-1].Interface().(error); failed {
			failures++
			if _, is := err.(*LibnbdError); !is {
				t.Errorf("%s: %T", name, err)
			}
		}
	}
	if failures < 80 || callbacks.count() != before {
		t.Errorf("%d failures, %d callbacks left", failures, callbacks.count()-before)
	}
	wants(t, h.OptInfo(), syscall.ENOTCONN, "nbd_opt_info")
}
