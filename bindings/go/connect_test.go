package libnbd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// reads proves that the handle is connected with the pattern plugin.
func reads(t *testing.T, h *Libnbd) {
	t.Helper()
	buf := make([]byte, 512)
	must(t, h.Pread(buf, 4096, nil))
	if string(buf) != string(pattern(4096, 512)) {
		t.Fatal("wrong bytes")
	}
}

func TestConnect(t *testing.T) {
	socket := nbdkit(t, "pattern", "1M")
	port := nbdkitTcp(t, "127.0.0.1", "pattern", "1M")
	serve := []string{"nbdkit", "pattern", "1M"}
	onStdio := []string{"nbdkit", "-s", "pattern", "1M"}
	file := func(t *testing.T) int {
		c := dial(t, socket).(*net.UnixConn)
		f, err := c.File()
		must(t, err)
		defer f.Close()
		// The library closes what it is given.
		fd, err := syscall.Dup(int(f.Fd()))
		must(t, err)
		return fd
	}
	for name, connect := range map[string]func(*testing.T, *Libnbd) error{
		"Uri":     func(t *testing.T, h *Libnbd) error { return h.ConnectUri("nbd+unix:///?socket=" + socket) },
		"UriTcp":  func(t *testing.T, h *Libnbd) error { return h.ConnectUri("nbd://127.0.0.1:" + port) },
		"Unix":    func(t *testing.T, h *Libnbd) error { return h.ConnectUnix(socket) },
		"Tcp":     func(t *testing.T, h *Libnbd) error { return h.ConnectTcp("127.0.0.1", port) },
		"Socket":  func(t *testing.T, h *Libnbd) error { return h.ConnectSocket(file(t)) },
		"Command": func(t *testing.T, h *Libnbd) error { return h.ConnectCommand(onStdio) },
		"Activation": func(t *testing.T, h *Libnbd) error {
			return h.ConnectSystemdSocketActivation(serve)
		},
		"AioUri":     func(t *testing.T, h *Libnbd) error { return h.AioConnectUri("nbd+unix:///?socket=" + socket) },
		"AioUnix":    func(t *testing.T, h *Libnbd) error { return h.AioConnectUnix(socket) },
		"AioTcp":     func(t *testing.T, h *Libnbd) error { return h.AioConnectTcp("127.0.0.1", port) },
		"AioSocket":  func(t *testing.T, h *Libnbd) error { return h.AioConnectSocket(file(t)) },
		"AioCommand": func(t *testing.T, h *Libnbd) error { return h.AioConnectCommand(onStdio) },
		"AioActivation": func(t *testing.T, h *Libnbd) error {
			return h.AioConnectSystemdSocketActivation(serve)
		},
		"AioConnectUnix": func(t *testing.T, h *Libnbd) error { return h.AioConnect(socket) },
		"AioConnectIp":   func(t *testing.T, h *Libnbd) error { return h.AioConnect("127.0.0.1:" + port) },
	} {
		t.Run(name, func(t *testing.T) {
			h := handle(t)
			must(t, connect(t, h))
			until(t, h, ready(t, h))
			reads(t, h)
			must(t, h.Shutdown(nil))
			if !first(h.AioIsClosed())(t) {
				t.Error("it is not closed")
			}
		})
	}
}

func dial(t *testing.T, socket string) net.Conn {
	c, err := net.Dial("unix", socket)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAioConnectIp6(t *testing.T) {
	port := nbdkitTcp(t, "::1", "pattern", "1M")
	for _, addr := range []string{"[::1]:" + port, "[::1%lo]:" + port, "[::1%1]:" + port} {
		h := handle(t)
		must(t, h.AioConnect(addr))
		until(t, h, ready(t, h))
		reads(t, h)
	}
}

// An abstract socket, and one whose path fills the address.
func TestAioConnectUnixNames(t *testing.T) {
	inner := nbdkit(t, "pattern", "1M")
	long := filepath.Join(shortDir(t), "x")
	for len(long) < 107 {
		long += "x"
	}
	for _, name := range []string{"@libnbd-go-" + filepath.Base(filepath.Dir(inner)), long} {
		listener, err := net.Listen("unix", name)
		must(t, err)
		defer listener.Close()
		go relay(listener, inner)
		h := handle(t)
		must(t, h.AioConnect(name))
		until(t, h, ready(t, h))
		reads(t, h)
	}
}

// relay passes one connection on.
func relay(listener net.Listener, socket string) {
	from, err := listener.Accept()
	if err != nil {
		return
	}
	to, err := net.Dial("unix", socket)
	if err != nil {
		from.Close()
		return
	}
	pass := func(from, to net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if err != nil {
				to.Close()
				return
			}
			to.Write(buf[:n])
		}
	}
	go pass(from, to)
	pass(to, from)
}

func TestAioConnectRefuses(t *testing.T) {
	h := handle(t)
	for _, addr := range []string{"", "localhost:10809", "127.0.0.1", "127.0.0.1:70000", "[::1%no-such]:1"} {
		wants(t, h.AioConnect(addr), syscall.EINVAL, "nbd_aio_connect: ")
	}
	wants(t, h.AioConnect("/a\x00b"), syscall.EINVAL, "NUL")
	wants(t, h.AioConnect("/"+strings.Repeat("x", 107)), syscall.ENAMETOOLONG, "nbd_aio_connect")
	if !first(h.AioIsCreated())(t) {
		t.Error("a refused address used the handle up")
	}
}

func TestConnectFails(t *testing.T) {
	h := handle(t)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	wants(t, h.ConnectUnix(nowhere), syscall.ENOENT, "nbd_connect_unix")
	wants(t, handle(t).ConnectUri("localhost"), syscall.EINVAL, "NBD URI does not have a scheme")
	wants(t, handle(t).ConnectUri("nbd://a\x00b"), syscall.EINVAL, "nbd_connect_uri: there is a NUL in uri")
	wants(t, handle(t).ConnectCommand([]string{"true", "a\x00b"}), syscall.EINVAL, "there is a NUL in argv")
	if err := handle(t).ConnectCommand([]string{"/no/such/program"}); err == nil {
		t.Error("a program that is not there")
	}
	if err := handle(t).ConnectCommand(nil); err == nil {
		t.Error("no program at all")
	}
}

func TestUri(t *testing.T) {
	socket := nbdkit(t, "pattern", "1M")
	h := handle(t)
	must(t, h.SetUriAllowTransports(ALLOW_TRANSPORT_TCP))
	wants(t, h.ConnectUri("nbd+unix:///?socket="+socket), syscall.EPERM, "not permitted")
	must(t, h.SetUriAllowTransports(ALLOW_TRANSPORT_MASK))
	must(t, h.ConnectUri("nbd+unix:///name?socket="+socket))
	if uri := *first(h.GetUri())(t); uri != "nbd+unix:///name?socket="+socket {
		t.Error(uri)
	}
	if !first(h.IsUri("nbd://x"))(t) || first(h.IsUri("/x"))(t) {
		t.Error("IsUri")
	}
}

func TestSubprocess(t *testing.T) {
	needs(t, "nbdkit")
	h := handle(t)
	must(t, h.ConnectCommand([]string{"nbdkit", "-s", "pattern", "1M"}))
	pid := first(h.GetSubprocessPid())(t)
	must(t, syscall.Kill(int(pid), 0))
	must(t, h.KillSubprocess(0))
	h.Close()
	if err := syscall.Kill(int(pid), 0); err != syscall.ESRCH {
		t.Errorf("the server is still there: %v", err)
	}
}

// TLS with a key that both know, and files in a URI only where they are permitted.
func TestTls(t *testing.T) {
	h := handle(t)
	if !first(h.SupportsTls())(t) {
		t.Skip("the library is built without TLS")
	}
	keys := filepath.Join(t.TempDir(), "keys.psk")
	must(t, os.WriteFile(keys, []byte("alice:0123456789abcdef0123456789abcdef\n"), 0o600))
	socket := nbdkit(t, "--tls=require", "--tls-psk="+keys, "pattern", "1M")
	uri := "nbds+unix://alice@/?socket=" + socket + "&tls-psk-file=" + keys
	wants(t, h.ConnectUri(uri), syscall.EPERM, "nbd_connect_uri")
	must(t, h.SetUriAllowLocalFile(true))
	must(t, h.ConnectUri(uri))
	if !first(h.GetTlsNegotiated())(t) || first(h.GetTls())(t) != TLS_REQUIRE {
		t.Error("it is not encrypted")
	}
	reads(t, h)
	h = handle(t)
	if err := h.ConnectUnix(socket); err == nil {
		t.Error("connected without TLS")
	}
}
