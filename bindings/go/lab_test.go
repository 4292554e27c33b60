package libnbd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the tests share: handles, servers, and the promise that nothing is left over.

// Longer than anything here takes on a busy machine.
const patience = 60 * time.Second

// When all is over, C has given every callback back.
func TestMain(m *testing.M) {
	code := m.Run()
	for began := time.Now(); callbacks.count() != lost && time.Since(began) < patience; {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	if left := callbacks.count() - lost; left != 0 && code == 0 {
		fmt.Printf("%d callbacks were never freed\n", left)
		code = 1
	}
	os.Exit(code)
}

// The callbacks that a test gave up on purpose.
var lost int

// handle makes a handle, which is closed when the test is over.
func handle(t testing.TB) *Libnbd {
	h, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// must ends the test if something failed.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// first(h.GetSize())(t) is what a call returned, which must not have failed.
func first[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return value
	}
}

// wants is a failure with this errno, and this in its words.
func wants(t testing.TB, err error, errno syscall.Errno, words string) {
	t.Helper()
	var found *LibnbdError
	switch {
	case err == nil:
		t.Fatalf("no error; wanted: %s", words)
	case !errors.As(err, &found):
		t.Fatalf("%T is no *LibnbdError", err)
	case found.Errno != errno || !errors.Is(err, errno) && errno != 0 || !strings.Contains(err.Error(), words):
		t.Fatalf("%v (%d); wanted: %s (%d)", err, int(found.Errno), words, int(errno))
	}
}

// needs skips the test without a program.
func needs(t testing.TB, program string) {
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// start runs a server until the test is over.
func start(t testing.TB, listens func() bool, argv ...string) {
	command := exec.Command(argv[0], argv[1:]...)
	var said strings.Builder
	command.Stderr = &said
	must(t, command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		command.Process.Kill()
		<-ended
	})
	for began := time.Now(); !listens(); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%v: %v: %s", argv, err, said.String())
		default:
		}
		if time.Since(began) > patience {
			t.Fatalf("%v does not listen", argv)
		}
	}
}

// answers tells whether somebody listens there.
func answers(network, address string) func() bool {
	return func() bool {
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

// nbdkit listens on a Unix socket, whose path is returned.
func nbdkit(t testing.TB, words ...string) string {
	needs(t, "nbdkit")
	socket := filepath.Join(shortDir(t), "s")
	start(t, answers("unix", socket),
		append([]string{"nbdkit", "-f", "-U", socket}, words...)...)
	return socket
}

// nbdkitTcp listens on a port of an address.
func nbdkitTcp(t testing.TB, ip string, words ...string) string {
	needs(t, "nbdkit")
	free, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skipf("no address %s here: %v", ip, err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	start(t, answers("tcp", net.JoinHostPort(ip, port)), append([]string{"nbdkit", "-f", "-i", ip, "-p", port}, words...)...)
	return port
}

// blkit listens on a Unix socket: it knows what nbdkit may be too old for. BLKIT names the program.
func blkit(t testing.TB, words ...string) string {
	program := os.Getenv("BLKIT")
	if program == "" {
		t.Skip("BLKIT does not name a built blkit")
	}
	socket := filepath.Join(shortDir(t), "s")
	start(t, answers("unix", socket),
		append([]string{program, "nbdkit", "-f", "-U", socket}, words...)...)
	return socket
}

// shortDir is a directory with a path that fits into the address of a socket.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "go")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// connected is a handle with a server of its own.
func connected(t testing.TB, words ...string) *Libnbd {
	h := handle(t)
	must(t, h.ConnectUnix(nbdkit(t, words...)))
	return h
}

// until polls as long as something is not so.
func until(t testing.TB, h *Libnbd, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); {
		if _, err := h.Poll(1000); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > patience {
			t.Fatal("nothing happens")
		}
	}
}

// ready tells whether the handle is connected.
func ready(t testing.TB, h *Libnbd) func() bool {
	return func() bool {
		is, err := h.AioIsReady()
		must(t, err)
		return is
	}
}

// pattern is what nbdkit's pattern plugin has at an offset: each 8 bytes are their own offset.
func pattern(offset, size int) []byte {
	bytes := make([]byte, size)
	for i := range bytes {
		at := uint64(offset + i)
		bytes[i] = byte((at &^ 7) >> (8 * (7 - at%8)))
	}
	return bytes
}
