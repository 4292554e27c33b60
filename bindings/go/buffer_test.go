package libnbd

import (
	"bytes"
	"testing"
)

func TestAioBuffer(t *testing.T) {
	data := []byte("some bytes of ours")
	buf := FromBytes(data)
	if buf.P == nil || buf.Ptr() != buf.P || buf.Size != uint(len(data)) || !bytes.Equal(buf.Bytes(), data) {
		t.Errorf("%v", buf)
	}
	// A copy of ours, and copies of its own.
	data[0] = 'S'
	copied := buf.Bytes()
	copied[1] = 'O'
	if string(buf.Slice()) != "some bytes of ours" {
		t.Errorf("%s", buf.Slice())
	}
	// Slice and Get are the memory itself.
	buf.Slice()[2] = 'M'
	*buf.Get(3) = 'E'
	if string(buf.Bytes()) != "soME bytes of ours" {
		t.Errorf("%s", buf.Bytes())
	}
	panics(t, func() { buf.Get(buf.Size) })
	buf.Free()
	buf.Free()
	if buf.P != nil {
		t.Error("it still points somewhere")
	}
	for _, use := range []func(){func() { buf.Bytes() }, func() { buf.Slice() }, func() { buf.Get(0) }} {
		panics(t, use)
	}
}

func panics(t *testing.T, what func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	what()
}

func TestAioBufferSizes(t *testing.T) {
	// Memory that had something in it before.
	dirty := MakeAioBuffer(1 << 16)
	copy(dirty.Slice(), bytes.Repeat([]byte{1}, 1<<16))
	dirty.Free()
	zero := MakeAioBufferZero(1 << 16)
	defer zero.Free()
	if !bytes.Equal(zero.Slice(), make([]byte, 1<<16)) {
		t.Error("no zeroes")
	}
	for _, empty := range []AioBuffer{MakeAioBuffer(0), MakeAioBufferZero(0), FromBytes(nil)} {
		if empty.P == nil || empty.Size != 0 || len(empty.Bytes()) != 0 {
			t.Errorf("%v", empty)
		}
		panics(t, func() { empty.Get(0) })
		empty.Free()
	}
}
