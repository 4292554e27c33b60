package libnbd

import (
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What is set is what is got, for every pair of the two.
func TestSetAndGet(t *testing.T) {
	h := reflect.ValueOf(handle(t))
	values := map[string]interface{}{
		"HandleName": "my handle", "ExportName": "exp\u00f6rt", "TlsUsername": "me", "TlsHostname": "host",
		"TlsPriority": "NORMAL", "SocketActivationName": "name", "Tls": TLS_ALLOW,
		"HandshakeFlags": HANDSHAKE_FLAG_FIXED_NEWSTYLE, "StrictMode": STRICT_COMMANDS | STRICT_ALIGN,
		"PrivateData": uint(4711),
	}
	pairs := 0
	for i := 0; i < h.NumMethod(); i++ {
		name := h.Type().Method(i).Name
		if len(name) < 4 || name[:3] != "Set" || !h.MethodByName("Get"+name[3:]).IsValid() {
			continue
		}
		pairs++
		for _, value := range valuesOf(values[name[3:]]) {
			if err, failed := call(h.MethodByName(name), value); failed {
				t.Errorf("%s(%v): %v", name, value, err)
				continue
			}
			is := h.MethodByName("Get" + name[3:]).Call(nil)
			if !is[1].IsNil() || reflect.Indirect(is[0]).Interface() != value {
				t.Errorf("%s: %v is %v", name, value, reflect.Indirect(is[0]))
			}
		}
	}
	if pairs < 18 {
		t.Errorf("only %d pairs", pairs)
	}
}

func valuesOf(value interface{}) []interface{} {
	if value == nil {
		return []interface{}{true, false}
	}
	return []interface{}{value}
}

// call calls a method; its last result is an error.
func call(method reflect.Value, values ...interface{}) (error, bool) {
	var in []reflect.Value
	for _, value := range values {
		in = append(in, reflect.ValueOf(value))
	}
	out := method.Call(in)
	err, failed := out[len(out)-1].Interface().(error)
	return err, failed
}

func TestMetaContexts(t *testing.T) {
	h := handle(t)
	must(t, h.AddMetaContext(CONTEXT_BASE_ALLOCATION))
	must(t, h.AddMetaContext(CONTEXT_QEMU_DIRTY_BITMAP+"x"))
	if n := first(h.GetNrMetaContexts())(t); n != 2 {
		t.Error(n)
	}
	if name := *first(h.GetMetaContext(1))(t); name != "qemu:dirty-bitmap:x" {
		t.Error(name)
	}
	_, err := h.GetMetaContext(2)
	wants(t, err, syscall.EINVAL, "nbd_get_meta_context")
	must(t, h.ClearMetaContexts())
	if n := first(h.GetNrMetaContexts())(t); n != 0 {
		t.Error(n)
	}
}

func TestBuild(t *testing.T) {
	h := handle(t)
	if name := *first(h.GetPackageName())(t); name != "libnbd" {
		t.Error(name)
	}
	if version := *first(h.GetVersion())(t); version[:5] != "1.24." {
		t.Error(version)
	}
	if !first(h.SupportsUri())(t) || first(h.GetHandleSize())(t) == 0 {
		t.Error("no URIs, or no size")
	}
	if !strings.HasPrefix(*first(h.ConnectionState())(t), "START:") || !first(h.AioIsCreated())(t) {
		t.Error("it is not new")
	}
}

func TestNumbersThatCHasNot(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip("int has 32 bits here, too")
	}
	big := int64(1) << 40
	_, err := handle(t).Poll(int(big))
	wants(t, err, syscall.ERANGE, "nbd_poll: timeout is 1099511627776")
	wants(t, handle(t).ConnectSocket(int(-big)), syscall.ERANGE, "nbd_connect_socket: sock is")
}

func TestDebug(t *testing.T) {
	h := handle(t)
	var messages, wrong int
	must(t, h.SetDebugCallback(func(context string, msg string) int {
		messages++
		if context == "" || msg == "" {
			wrong++
		}
		return 0
	}))
	must(t, h.SetDebug(true))
	must(t, h.ConnectUnix(nbdkit(t, "memory", "1M")))
	must(t, h.SetDebug(false))
	if messages == 0 || wrong > 0 {
		t.Errorf("%d messages, %d wrong", messages, wrong)
	}
	is := callbacks.count()
	must(t, h.ClearDebugCallback())
	if callbacks.count() != is-1 {
		t.Error("the callback is kept")
	}
}
