package libnbd

import (
	"bytes"
	"reflect"
	"syscall"
	"testing"
)

// A disk of 8 MiB with words at 4 MiB, of a server that knows which blocks are there.
func sparse(t *testing.T) *Libnbd {
	h := handle(t)
	must(t, h.AddMetaContext(CONTEXT_BASE_ALLOCATION))
	must(t, h.ConnectUnix(nbdkit(t, "memory", "8M")))
	must(t, h.Pwrite(bytes.Repeat([]byte{1}, 65536), 4<<20, nil))
	if !first(h.CanMetaContext(CONTEXT_BASE_ALLOCATION))(t) {
		t.Fatal("no extents")
	}
	return h
}

// What sparse has, as far as offset and length tell.
var extents = []LibnbdExtent{
	{4 << 20, STATE_HOLE | STATE_ZERO}, {65536, 0}, {4<<20 - 65536, STATE_HOLE | STATE_ZERO},
}

func TestBlockStatus(t *testing.T) {
	h := sparse(t)
	var kept []uint32
	gather := func(context string, offset uint64, entries []uint32, error *int) int {
		if context != CONTEXT_BASE_ALLOCATION || offset != 0 || *error != 0 {
			t.Errorf("%s at %d: %d", context, offset, *error)
		}
		kept = entries // it is a copy
		return 0
	}
	must(t, h.BlockStatus(8<<20, 0, gather, nil))
	var wanted []uint32
	for _, extent := range extents {
		wanted = append(wanted, uint32(extent.Length), uint32(extent.Flags))
	}
	if !reflect.DeepEqual(kept, wanted) {
		t.Errorf("%v", kept)
	}
	must(t, h.BlockStatus(8<<20, 0, gather, &BlockStatusOptargs{FlagsSet: true, Flags: CMD_FLAG_REQ_ONE}))
	if len(kept) != 2 {
		t.Errorf("%v", kept)
	}
}

func TestBlockStatus64(t *testing.T) {
	h := sparse(t)
	var kept []LibnbdExtent
	gather := func(context string, offset uint64, entries []LibnbdExtent, error *int) int {
		kept = append(kept, entries...)
		return 0
	}
	must(t, h.BlockStatus64(8<<20, 0, gather, nil))
	if !reflect.DeepEqual(kept, extents) {
		t.Errorf("%v", kept)
	}
	kept = nil
	done := false
	_, err := h.AioBlockStatus64(8<<20, 0, gather, &AioBlockStatus64Optargs{
		CompletionCallbackSet: true,
		CompletionCallback:    func(*int) int { done = true; return 1 },
	})
	must(t, err)
	until(t, h, func() bool { return done })
	if !reflect.DeepEqual(kept, extents) {
		t.Errorf("%v", kept)
	}
}

// More than 32 bits of length, and a list of contexts.
func TestBlockStatusFilter(t *testing.T) {
	h := handle(t)
	must(t, h.AddMetaContext(CONTEXT_BASE_ALLOCATION))
	must(t, h.ConnectUnix(blkit(t, "memory", "8G")))
	var length uint64
	gather := func(context string, offset uint64, entries []LibnbdExtent, error *int) int {
		for _, entry := range entries {
			length += entry.Length
		}
		return 0
	}
	must(t, h.BlockStatus64(8<<30, 0, gather, nil))
	if length != 8<<30 {
		t.Error(length)
	}
	if !first(h.CanBlockStatusPayload())(t) {
		t.Skip("blkit does not take payloads with block status")
	}
	length = 0
	must(t, h.BlockStatusFilter(8<<30, 0, []string{CONTEXT_BASE_ALLOCATION}, gather, nil))
	if length != 8<<30 {
		t.Error(length)
	}
	err := h.BlockStatusFilter(8<<30, 0, []string{"no:such"}, gather, nil)
	wants(t, err, syscall.EINVAL, "no:such")
}

func TestExtentCallbackRefuses(t *testing.T) {
	h := sparse(t)
	err := h.BlockStatus(8<<20, 0, func(_ string, _ uint64, _ []uint32, error *int) int {
		*error = int(syscall.EXDEV)
		return -1
	}, nil)
	wants(t, err, syscall.EXDEV, "nbd_block_status")
	err = h.BlockStatus64(8<<20, 0, func(string, uint64, []LibnbdExtent, *int) int { return -1 }, nil)
	wants(t, err, syscall.EPROTO, "nbd_block_status_64")
	wants(t, h.BlockStatus64(8<<20, 0, nil, nil), syscall.EFAULT, "NULL")
	_, err = connected(t, "memory", "1M").CanMetaContext(CONTEXT_BASE_ALLOCATION)
	must(t, err)
}

func TestPreadStructured(t *testing.T) {
	h := connected(t, "pattern", "1M")
	buf := make([]byte, 100000)
	total := 0
	must(t, h.PreadStructured(buf, 5000, func(subbuf []byte, offset uint64, status uint, error *int) int {
		if status != READ_DATA || *error != 0 || &subbuf[0] != &buf[offset-5000] {
			t.Errorf("status %d, error %d, offset %d", status, *error, offset)
		}
		if !bytes.Equal(subbuf, pattern(int(offset), len(subbuf))) {
			t.Error("the piece has other bytes")
		}
		total += len(subbuf)
		return 0
	}, &PreadStructuredOptargs{FlagsSet: true, Flags: CMD_FLAG_DF}))
	if total != len(buf) || !bytes.Equal(buf, pattern(5000, len(buf))) {
		t.Errorf("%d bytes", total)
	}
	err := h.PreadStructured(buf, 0, func(_ []byte, _ uint64, _ uint, error *int) int {
		*error = int(syscall.EXDEV)
		return -1
	}, nil)
	wants(t, err, syscall.EXDEV, "nbd_pread_structured")
}

func TestAioPreadStructured(t *testing.T) {
	h := connected(t, "pattern", "1M")
	buf := MakeAioBuffer(8192)
	defer buf.Free()
	var order []string
	_, err := h.AioPreadStructured(buf, 0, func(subbuf []byte, _ uint64, _ uint, _ *int) int {
		if &subbuf[0] == buf.Get(0) {
			order = append(order, "chunk")
		}
		return 0
	}, &AioPreadStructuredOptargs{CompletionCallbackSet: true, CompletionCallback: func(*int) int {
		order = append(order, "completion")
		return 1
	}})
	must(t, err)
	until(t, h, func() bool { return len(order) == 2 })
	if !reflect.DeepEqual(order, []string{"chunk", "completion"}) || !bytes.Equal(buf.Slice(), pattern(0, 8192)) {
		t.Errorf("%v", order)
	}
}

// A piece that has failed, and holes: of blkit, which has both in its answers.
func TestHoles(t *testing.T) {
	h := handle(t)
	must(t, h.ConnectUnix(blkit(t, "memory", "8M")))
	must(t, h.Pwrite(bytes.Repeat([]byte{1}, 4096), 0, nil))
	buf := bytes.Repeat([]byte{9}, 1<<20)
	count := map[uint]int{}
	must(t, h.PreadStructured(buf, 0, func(subbuf []byte, _ uint64, status uint, _ *int) int {
		count[status] += len(subbuf)
		return 0
	}, nil))
	if count[READ_DATA]+count[READ_HOLE] != len(buf) || !bytes.Equal(buf[4096:], make([]byte, len(buf)-4096)) {
		t.Errorf("%v", count)
	}
}
