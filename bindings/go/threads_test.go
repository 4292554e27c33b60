package libnbd

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// each runs something in many goroutines.
func each(n int, what func(i int)) {
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			what(i)
		}(i)
	}
	all.Wait()
}

// Many goroutines with a handle each; their errors are their own.
func TestHandleEach(t *testing.T) {
	socket := nbdkit(t, "memory", "16M")
	each(32, func(i int) {
		h, err := Create()
		if err == nil {
			err = h.ConnectUnix(socket)
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		mine, read := bytes.Repeat([]byte{byte(i + 1)}, 4096), make([]byte, 4096)
		for j := 0; j < 50; j++ {
			offset := uint64(i*50+j) * 4096
			if err := h.Pwrite(mine, offset, nil); err != nil {
				t.Error(err)
			}
			if err := h.Pread(read, offset, nil); err != nil || !bytes.Equal(mine, read) {
				t.Errorf("%v, or other bytes", err)
			}
			wanted := "nbd_pread: request out of bounds: Invalid argument"
			if i%2 == 0 {
				err = h.Pread(read, 16<<20, nil)
			} else {
				wanted = "nbd_opt_go: invalid state"
				err = h.OptGo()
			}
			if err == nil || !strings.HasPrefix(err.Error(), wanted) {
				t.Errorf("%v", err)
			}
		}
	})
}

// Many goroutines with one handle: each waits for its own commands.
func TestHandleShared(t *testing.T) {
	h := connected(t, "memory", "16M")
	each(16, func(i int) {
		r := rand.New(rand.NewSource(int64(i)))
		mine, read := make([]byte, 8192), make([]byte, 8192)
		for j := 0; j < 50; j++ {
			r.Read(mine)
			offset := uint64(i) << 20
			if err := h.Pwrite(mine, offset, nil); err != nil {
				t.Error(err)
			}
			if err := h.Pread(read, offset, nil); err != nil || !bytes.Equal(mine, read) {
				t.Errorf("%v, or other bytes", err)
			}
		}
	})
}

// One goroutine sleeps in Poll, and others submit meanwhile.
func TestSubmitWhilePolling(t *testing.T) {
	h := connected(t, "memory", "1M")
	stop := make(chan bool)
	var poller sync.WaitGroup
	poller.Add(1)
	go func() {
		defer poller.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := h.Poll(1000); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	each(8, func(i int) {
		buf := MakeAioBufferZero(4096)
		defer buf.Free()
		for j := 0; j < 50; j++ {
			done := make(chan int, 1)
			_, err := h.AioPwrite(buf, uint64(i)*4096, &AioPwriteOptargs{
				CompletionCallbackSet: true,
				CompletionCallback:    func(error *int) int { done <- *error; return 1 },
			})
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case code := <-done:
				if code != 0 {
					t.Error(code)
				}
			case <-time.After(patience):
				t.Error("nothing happens")
				return
			}
		}
	})
	close(stop)
	poller.Wait()
}

// Close while others are in calls: they end as they would, or are told that it is closed.
func TestCloseWhileUsed(t *testing.T) {
	for i := 0; i < 20; i++ {
		h := connected(t, "memory", "1M")
		closing := make(chan bool)
		go func() {
			<-closing
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}()
		each(8, func(i int) {
			buf := make([]byte, 4096)
			for j := 0; ; j++ {
				if i == 0 && j == 5 {
					close(closing)
				}
				if err := h.Pread(buf, 0, nil); err != nil {
					if err.(*LibnbdError).Errno != syscall.EBADF {
						t.Error(err)
					}
					return
				}
			}
		})
	}
}

// Go interrupts its threads with signals, and profilers more often.
func TestSignals(t *testing.T) {
	needs(t, "nbdkit")
	came := make(chan os.Signal, 100)
	signal.Notify(came, syscall.SIGUSR1)
	defer signal.Stop(came)
	stop := make(chan bool)
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				// To any thread that takes it: those that sleep in C, too.
				tasks, _ := os.ReadDir("/proc/self/task")
				for _, task := range tasks {
					var tid int
					fmt.Sscan(task.Name(), &tid)
					syscall.Tgkill(os.Getpid(), tid, syscall.SIGUSR1)
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	for i := 0; i < 5; i++ {
		h := handle(t)
		must(t, h.ConnectCommand([]string{"nbdkit", "-s", "--filter=delay", "pattern", "1M", "rdelay=2ms"}))
		for j := 0; j < 50; j++ {
			reads(t, h)
		}
		h.Close()
		h = handle(t)
		must(t, h.ConnectSystemdSocketActivation([]string{"nbdkit", "pattern", "1M"}))
		reads(t, h)
		h.Close()
	}
}

// The thread that started a server ends, and the server stays.
func TestThreadThatConnectedEnds(t *testing.T) {
	needs(t, "nbdkit")
	h := handle(t)
	connected := make(chan error)
	go func() {
		// Go ends the thread of a goroutine that ends with it locked.
		runtime.LockOSThread()
		// The shell between them is no copy of nbdkit: that one asks the kernel itself to end it
		// with the thread that started it.
		connected <- h.ConnectCommand([]string{"sh", "-c", "nbdkit -s pattern 1M; true"})
	}()
	must(t, <-connected)
	time.Sleep(50 * time.Millisecond)
	reads(t, h)
}
