package libnbd

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Numbers come round where pointers are short: those in use and 0 are passed over.
func TestRegistryComesRound(t *testing.T) {
	nothing := CompletionCallback(func(*int) int { return 0 })
	r := registry{last: ^uintptr(0) - 1, known: map[uintptr]registration{1: {}, 2: {}, 4: {}}}
	for _, wanted := range []uintptr{^uintptr(0), 3, 5} {
		if is := uintptr(r.put(nothing, nil)); is != wanted {
			t.Errorf("%d and not %d", is, wanted)
		}
	}
	if r.count() != 6 {
		t.Error(r.count())
	}
	r.remove(3)
	panics(t, func() { r.get(3) })
	if id := r.put(CompletionCallback(nil), nil); id != 0 {
		t.Errorf("%d for no callback", id)
	}
}

func TestRegistryInParallel(t *testing.T) {
	r := registry{last: ^uintptr(0) - 5000, known: map[uintptr]registration{}}
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			for j := 0; j < 2000; j++ {
				mine := i*2000 + j
				id := uintptr(r.put(CompletionCallback(func(*int) int { return mine }), nil))
				callback, _ := r.get(id)
				if callback.(CompletionCallback)(nil) != mine {
					t.Error("a callback of another")
				}
				r.remove(id)
			}
		}(i)
	}
	all.Wait()
	if r.count() != 0 {
		t.Error(r.count())
	}
}

// Whatever ends a call, its callbacks come back.
func TestCallbacksComeBack(t *testing.T) {
	h := sparse(t)
	before := callbacks.count()
	for i := 0; i < 1000; i++ {
		must(t, h.BlockStatus(1<<20, 0, func(string, uint64, []uint32, *int) int { return 0 }, nil))
		must(t, h.PreadStructured(make([]byte, 512), 0, func([]byte, uint64, uint, *int) int { return 0 }, nil))
		h.BlockStatus(1<<20, 8<<20, func(string, uint64, []uint32, *int) int { return 0 }, nil)
	}
	if callbacks.count() != before {
		t.Errorf("%d are left", callbacks.count()-before)
	}
}

// A callback that calls its own handle is told so, and nothing hangs.
func TestCallbackCallsItsHandle(t *testing.T) {
	h := connected(t, "memory", "1M")
	var inside error
	must(t, h.PreadStructured(make([]byte, 512), 0, func([]byte, uint64, uint, *int) int {
		inside = h.Flush(nil)
		return 0
	}, nil))
	wants(t, inside, syscall.EDEADLK, "nbd_flush")
	// Another handle is free.
	other := connected(t, "memory", "1M")
	must(t, h.PreadStructured(make([]byte, 512), 0, func([]byte, uint64, uint, *int) int {
		inside = other.Flush(nil)
		return 0
	}, nil))
	must(t, inside)
}

// A panic goes past C to the caller, and the handle is as good as before.
func TestCallbackPanics(t *testing.T) {
	h := connected(t, "memory", "1M")
	for i := 0; i < 3; i++ {
		func() {
			defer func() {
				if value := recover(); value != "mine" {
					t.Errorf("recovered %v", value)
				}
			}()
			h.PreadStructured(make([]byte, 512), 0, func([]byte, uint64, uint, *int) int { panic("mine") }, nil)
			t.Error("no panic")
		}()
		must(t, h.Pread(make([]byte, 512), 0, nil))
	}
	// One that is called by Close.
	buf := MakeAioBuffer(512)
	defer buf.Free()
	slow := connected(t, "--filter=delay", "memory", "1M", "rdelay=60")
	_, err := slow.AioPread(buf, 0, &AioPreadOptargs{CompletionCallbackSet: true, CompletionCallback: func(*int) int { panic("mine") }})
	must(t, err)
	panics(t, func() { slow.Close() })
	wants(t, slow.Flush(nil), syscall.EBADF, "handle is closed")
}

func TestCloseInCallback(t *testing.T) {
	h := connected(t, "memory", "1M")
	must(t, h.PreadStructured(make([]byte, 512), 0, func([]byte, uint64, uint, *int) int {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		return 0
	}, nil))
	wants(t, h.Flush(nil), syscall.EBADF, "nbd_flush: handle is closed")
}

// A handle that nobody has any more is closed, and its server ends.
func TestGarbage(t *testing.T) {
	needs(t, "nbdkit")
	before := callbacks.count()
	pid := func() int {
		h, err := Create()
		must(t, err)
		must(t, h.SetDebugCallback(func(string, string) int { return 0 }))
		must(t, h.ConnectCommand([]string{"nbdkit", "-s", "memory", "1M"}))
		return int(first(h.GetSubprocessPid())(t))
	}()
	for began := time.Now(); syscall.Kill(pid, 0) != syscall.ESRCH || callbacks.count() != before; {
		runtime.GC()
		time.Sleep(time.Millisecond)
		if time.Since(began) > patience {
			t.Fatalf("server %d is still there, or %d callbacks", pid, callbacks.count()-before)
		}
	}
}

// The garbage collector runs while C has the buffer and the callback.
func TestGarbageDuringCalls(t *testing.T) {
	stop := make(chan bool)
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	h := connected(t, "pattern", "1M")
	for i := 0; i < 200; i++ {
		buf := make([]byte, 8192)
		got := 0
		must(t, h.PreadStructured(buf, uint64(i*8), func(subbuf []byte, _ uint64, _ uint, _ *int) int {
			got += len(fmt.Sprint(subbuf)) // makes garbage
			return 0
		}, nil))
		if got == 0 || string(buf) != string(pattern(i*8, len(buf))) {
			t.Fatal("other bytes")
		}
	}
}
