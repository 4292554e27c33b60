package libnbd

import (
	"reflect"
	"sort"
	"syscall"
	"testing"
)

// negotiating is a handle in option mode, of a server with two exports.
func negotiating(t *testing.T) *Libnbd {
	h := handle(t)
	must(t, h.SetOptMode(true))
	must(t, h.ConnectUnix(nbdkit(t, "--filter=exportname", "memory", "1M", "exportname-list=explicit",
		"exportname-strict=true", "exportname=one", "exportname=two", "exportdesc=fixed:words")))
	if !first(h.AioIsNegotiating())(t) || !first(h.GetOptMode())(t) {
		t.Fatal("it does not negotiate")
	}
	return h
}

func TestOptList(t *testing.T) {
	h := negotiating(t)
	var names []string
	n := first(h.OptList(func(name, description string) int {
		if description != "words" {
			t.Error(description)
		}
		names = append(names, name)
		return 0
	}))(t)
	sort.Strings(names)
	if n != 2 || !reflect.DeepEqual(names, []string{"one", "two"}) {
		t.Errorf("%d: %v", n, names)
	}
	must(t, h.OptAbort())
	if !first(h.AioIsClosed())(t) {
		t.Error("it is not closed")
	}
}

// On a connection of its own: nbdkit 1.32 lists once in each.
func TestAioOptList(t *testing.T) {
	h := negotiating(t)
	done, listed := false, 0
	must(t, h.AioOptList(func(string, string) int { listed++; return 0 }, &AioOptListOptargs{
		CompletionCallbackSet: true,
		CompletionCallback:    func(*int) int { done = true; return 1 },
	}))
	until(t, h, func() bool { return done })
	if listed != 2 {
		t.Error(listed)
	}
}

func TestOptInfoAndGo(t *testing.T) {
	h := negotiating(t)
	must(t, h.SetExportName("three"))
	wants(t, h.OptInfo(), syscall.ENOENT, "nbd_opt_info")
	wants(t, h.OptGo(), syscall.ENOENT, "nbd_opt_go")
	must(t, h.SetExportName("two"))
	must(t, h.OptInfo())
	if size := first(h.GetSize())(t); size != 1<<20 {
		t.Error(size)
	}
	must(t, h.OptGo())
	must(t, h.Pread(make([]byte, 512), 0, nil))
	wants(t, h.OptInfo(), syscall.EINVAL, "invalid state")
}

func TestAioOpt(t *testing.T) {
	h := negotiating(t)
	must(t, h.SetExportName("one"))
	done, code := 0, -1
	cb := func(error *int) int {
		done, code = done+1, *error
		return 1
	}
	must(t, h.AioOptInfo(&AioOptInfoOptargs{true, cb}))
	until(t, h, func() bool { return done == 1 })
	must(t, h.SetExportName("three"))
	must(t, h.AioOptGo(&AioOptGoOptargs{true, cb}))
	until(t, h, func() bool { return done == 2 })
	if syscall.Errno(code) != syscall.ENOENT {
		t.Error(code)
	}
	must(t, h.SetExportName("one"))
	must(t, h.AioOptGo(nil))
	until(t, h, ready(t, h))
}

func TestOptMetaContexts(t *testing.T) {
	h := negotiating(t)
	must(t, h.SetExportName("one"))
	must(t, h.SetRequestMetaContext(false))
	var names []string
	gather := func(name string) int {
		names = append(names, name)
		return 0
	}
	if n := first(h.OptListMetaContext(gather))(t); n != 1 || names[0] != CONTEXT_BASE_ALLOCATION {
		t.Errorf("%d: %v", n, names)
	}
	for _, f := range []func([]string, ContextCallback) (uint, error){
		h.OptListMetaContextQueries, h.OptSetMetaContextQueries,
	} {
		if n := first(f([]string{"no:such"}, gather))(t); n != 0 {
			t.Error(n)
		}
		if n := first(f([]string{"no:such", CONTEXT_BASE_ALLOCATION}, gather))(t); n != 1 {
			t.Error(n)
		}
		_, err := f([]string{"a", "b\x00"}, gather)
		wants(t, err, syscall.EINVAL, "there is a NUL in queries")
	}
	must(t, h.OptGo())
	if !first(h.CanMetaContext(CONTEXT_BASE_ALLOCATION))(t) {
		t.Error("it was not set")
	}
}

// Step by step, what is otherwise done by itself.
func TestOptSteps(t *testing.T) {
	h := handle(t)
	must(t, h.SetOptMode(true))
	must(t, h.SetRequestStructuredReplies(false))
	must(t, h.SetRequestExtendedHeaders(false))
	must(t, h.ConnectUnix(nbdkit(t, "memory", "1M")))
	if first(h.GetStructuredRepliesNegotiated())(t) || !first(h.OptStructuredReply())(t) {
		t.Error("structured replies")
	}
	if first(h.OptStarttls())(t) {
		t.Error("TLS from a server without it")
	}
	must(t, h.OptGo())
	if !first(h.GetStructuredRepliesNegotiated())(t) {
		t.Error("structured replies")
	}
}
