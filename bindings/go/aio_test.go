package libnbd

import (
	"bytes"
	"syscall"
	"testing"
)

// Many commands at once, each with a callback for its end.
func TestAioCallbacks(t *testing.T) {
	const blocks, size = 200, 4096
	h := connected(t, "memory", "1M")
	done, before := 0, callbacks.count()
	submit := func(i int, aio func(AioBuffer, uint64, CompletionCallback) (uint64, error), buf AioBuffer) {
		cookie, err := aio(buf, uint64(i*size), func(error *int) int {
			if *error != 0 {
				t.Errorf("block %d: %d", i, *error)
			}
			done++
			return 1
		})
		must(t, err)
		if cookie == 0 {
			t.Error("a cookie is 0")
		}
	}
	var written, read [blocks]AioBuffer
	for i := range written {
		written[i] = FromBytes(bytes.Repeat([]byte{byte(i + 1)}, size))
		defer written[i].Free()
		submit(i, func(buf AioBuffer, offset uint64, cb CompletionCallback) (uint64, error) {
			return h.AioPwrite(buf, offset, &AioPwriteOptargs{CompletionCallback: cb, CompletionCallbackSet: true})
		}, written[i])
	}
	until(t, h, func() bool { return done == blocks })
	for i := range read {
		read[i] = MakeAioBuffer(size)
		defer read[i].Free()
		submit(i, func(buf AioBuffer, offset uint64, cb CompletionCallback) (uint64, error) {
			return h.AioPread(buf, offset, &AioPreadOptargs{CompletionCallback: cb, CompletionCallbackSet: true})
		}, read[i])
	}
	until(t, h, func() bool { return done == 2*blocks })
	for i := range read {
		if !bytes.Equal(read[i].Slice(), written[i].Slice()) {
			t.Errorf("block %d is another one", i)
		}
	}
	if n := first(h.AioInFlight())(t); n != 0 || callbacks.count() != before {
		t.Errorf("%d in flight, %d callbacks left", n, callbacks.count()-before)
	}
}

// A program's own loop: poll(2), directions, notify, cookies.
func TestAioLoop(t *testing.T) {
	h := connected(t, "pattern", "1M")
	const commands = 32
	buffers := map[uint64]AioBuffer{}
	offsets := map[uint64]int{}
	for i := 0; i < commands; i++ {
		buf := MakeAioBuffer(1000)
		defer buf.Free()
		cookie := first(h.AioPread(buf, uint64(i*1000), nil))(t)
		buffers[cookie], offsets[cookie] = buf, i*1000
	}
	if len(buffers) != commands {
		t.Fatal("cookies come twice")
	}
	for len(buffers) > 0 {
		turn(t, h)
		for len(buffers) > 0 {
			cookie := first(h.AioPeekCommandCompleted())(t)
			if cookie == 0 {
				break
			}
			if !first(h.AioCommandCompleted(cookie))(t) {
				t.Fatal("it is not completed")
			}
			buf := buffers[cookie]
			if !bytes.Equal(buf.Bytes(), pattern(offsets[cookie], 1000)) {
				t.Errorf("other bytes at %d", offsets[cookie])
			}
			delete(buffers, cookie)
		}
	}
	_, err := h.AioCommandCompleted(0)
	wants(t, err, syscall.EINVAL, "invalid aio cookie")
}

// turn waits for the socket, and tells the handle.
func turn(t *testing.T, h *Libnbd) {
	fd, direction := first(h.AioGetFd())(t), first(h.AioGetDirection())(t)
	var readable, writable syscall.FdSet
	if direction&AIO_DIRECTION_READ != 0 {
		readable.Bits[fd/64] |= 1 << (fd % 64)
	}
	if direction&AIO_DIRECTION_WRITE != 0 {
		writable.Bits[fd/64] |= 1 << (fd % 64)
	}
	limit := syscall.NsecToTimeval(patience.Nanoseconds())
	n, err := syscall.Select(fd+1, &readable, &writable, nil, &limit)
	if err == syscall.EINTR {
		return
	}
	if err != nil || n == 0 {
		t.Fatalf("select: %d, %v", n, err)
	}
	if readable.Bits[fd/64]&(1<<(fd%64)) != 0 {
		must(t, h.AioNotifyRead())
	} else {
		must(t, h.AioNotifyWrite())
	}
}

// A command's failure comes to its callback, and to whoever asks for its end.
func TestAioFails(t *testing.T) {
	h := connected(t, "--filter=error", "memory", "1M", "error=EIO", "error-pread-rate=100%")
	buf := MakeAioBufferZero(512)
	defer buf.Free()
	code := -1
	cookie, err := h.AioPread(buf, 0, &AioPreadOptargs{
		CompletionCallbackSet: true,
		CompletionCallback: func(error *int) int {
			code = *error
			return 0
		},
	})
	must(t, err)
	until(t, h, func() bool { return code != -1 })
	if syscall.Errno(code) != syscall.EIO {
		t.Error(code)
	}
	_, err = h.AioCommandCompleted(cookie)
	wants(t, err, syscall.EIO, "nbd_aio_command_completed: read: command failed")
}

// A callback makes a command fail that did not.
func TestCompletionRefuses(t *testing.T) {
	h := connected(t, "memory", "1M")
	called := false
	cookie, err := h.AioFlush(&AioFlushOptargs{CompletionCallbackSet: true, CompletionCallback: func(error *int) int {
		called, *error = true, int(syscall.EXDEV)
		return -1
	}})
	must(t, err)
	until(t, h, func() bool { return called })
	_, err = h.AioCommandCompleted(cookie)
	wants(t, err, syscall.EXDEV, "flush")
}

// A submission that fails gives its callbacks back.
func TestAioRefused(t *testing.T) {
	before := callbacks.count()
	h := connected(t, "memory", "1M")
	buf := MakeAioBuffer(512)
	defer buf.Free()
	completion := func(*int) int { t.Error("it was not submitted"); return 1 }
	_, err := h.AioPread(buf, 1<<20, &AioPreadOptargs{CompletionCallbackSet: true, CompletionCallback: completion})
	wants(t, err, syscall.EINVAL, "out of bounds")
	_, err = h.AioPreadStructured(buf, 1<<20, func([]byte, uint64, uint, *int) int { return 0 },
		&AioPreadStructuredOptargs{CompletionCallbackSet: true, CompletionCallback: completion})
	wants(t, err, syscall.EINVAL, "out of bounds")
	buf.Free()
	_, err = h.AioPread(buf, 0, &AioPreadOptargs{CompletionCallbackSet: true, CompletionCallback: completion})
	wants(t, err, syscall.EFAULT, "buf cannot be NULL")
	if callbacks.count() != before {
		t.Errorf("%d callbacks are left", callbacks.count()-before)
	}
}

// Every other command that is not waited for.
func TestAioOthers(t *testing.T) {
	h := connected(t, "memory", "1M")
	done := 0
	cb := func(error *int) int {
		if *error == 0 {
			done++
		}
		return 1
	}
	flags := CMD_FLAG_FUA
	buf := FromBytes([]byte("words"))
	defer buf.Free()
	for _, err := range []error{
		second(h.AioPwrite(buf, 0, &AioPwriteOptargs{true, cb, true, flags})),
		second(h.AioTrim(512, 512, &AioTrimOptargs{true, cb, true, flags})),
		second(h.AioZero(512, 512, &AioZeroOptargs{true, cb, true, flags})),
		second(h.AioCache(512, 0, &AioCacheOptargs{true, cb, false, flags})),
		second(h.AioFlush(&AioFlushOptargs{true, cb, false, 0})),
	} {
		must(t, err)
	}
	until(t, h, func() bool { return done == 5 })
	must(t, h.AioDisconnect(nil))
	until(t, h, func() bool { return first(h.AioIsClosed())(t) })
}

func second[T any](_ T, err error) error {
	return err
}

// What is under way when a handle is closed is told so, and its callbacks come back.
func TestCloseInFlight(t *testing.T) {
	before := callbacks.count()
	h := connected(t, "--filter=delay", "memory", "1M", "rdelay=60")
	buf := MakeAioBuffer(512)
	defer buf.Free()
	code := 0
	_, err := h.AioPread(buf, 0, &AioPreadOptargs{CompletionCallbackSet: true, CompletionCallback: func(error *int) int {
		code = *error
		return 1
	}})
	must(t, err)
	h.Close()
	if syscall.Errno(code) != syscall.ENOTCONN || callbacks.count() != before {
		t.Errorf("%d, and %d callbacks left", code, callbacks.count()-before)
	}
}

func TestPollTimesOut(t *testing.T) {
	h := connected(t, "memory", "1M")
	if n := first(h.Poll(1))(t); n != 0 {
		t.Error(n)
	}
	var pipe [2]int
	must(t, syscall.Pipe(pipe[:]))
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	if n := first(h.Poll2(pipe[0], 1))(t); n != 0 {
		t.Error(n)
	}
	syscall.Write(pipe[1], []byte{0})
	if n := first(h.Poll2(pipe[0], -1))(t); n != 1 {
		t.Error(n)
	}
}
