package libnbd

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
)

func TestPreadPwrite(t *testing.T) {
	h := connected(t, "memory", "1M")
	if size := first(h.GetSize())(t); size != 1<<20 {
		t.Error(size)
	}
	written := bytes.Repeat([]byte("twelve bytes"), 1000)
	must(t, h.Pwrite(written, 777, &PwriteOptargs{FlagsSet: true, Flags: CMD_FLAG_FUA}))
	must(t, h.Flush(nil))
	read := make([]byte, len(written)+2)
	must(t, h.Pread(read, 776, nil))
	if read[0] != 0 || read[len(read)-1] != 0 || !bytes.Equal(read[1:len(read)-1], written) {
		t.Error("other bytes than were written")
	}
	must(t, h.Zero(4096, 4096, &ZeroOptargs{FlagsSet: true, Flags: CMD_FLAG_NO_HOLE}))
	must(t, h.Trim(4096, 8192, nil))
	must(t, h.Cache(4096, 0, nil))
	must(t, h.Pread(read[:8192], 4096, nil))
	if !bytes.Equal(read[:8192], make([]byte, 8192)) {
		t.Error("no zeroes")
	}
}

// Optional arguments count only if they are Set.
func TestOptargs(t *testing.T) {
	h := connected(t, "memory", "1M")
	buf := make([]byte, 512)
	must(t, h.Pread(buf, 0, &PreadOptargs{Flags: CMD_FLAG_FUA}))
	err := h.Pread(buf, 0, &PreadOptargs{FlagsSet: true, Flags: CMD_FLAG_FUA})
	wants(t, err, syscall.EINVAL, "nbd_pread: flags: invalid value for flag: 0x1")
	wants(t, h.Zero(512, 0, &ZeroOptargs{true, CMD_FLAG_DF}), syscall.EINVAL, "nbd_zero")
}

// No bytes at all: what an empty slice is in C depends on how it was made.
func TestNoBytes(t *testing.T) {
	h := connected(t, "memory", "1M")
	for _, empty := range [][]byte{nil, {}, make([]byte, 8)[8:]} {
		wants(t, h.Pread(empty, 0, nil), syscall.EINVAL, "nbd_pread")
		wants(t, h.Pwrite(empty, 0, nil), syscall.EINVAL, "nbd_pwrite")
	}
}

// The bytes may lie in something that has pointers of Go beside them.
func TestBytesBesidePointers(t *testing.T) {
	h := connected(t, "pattern", "1M")
	var it struct {
		name *string
		data [512]byte
		rest []string
	}
	it.name, it.rest = new(string), []string{"x"}
	must(t, h.Pread(it.data[:], 512, nil))
	if !bytes.Equal(it.data[:], pattern(512, 512)) {
		t.Error("other bytes")
	}
}

func TestStrict(t *testing.T) {
	h := connected(t, "memory", "1M")
	buf := make([]byte, 512)
	wants(t, h.Pread(buf, 1<<20, nil), syscall.EINVAL, "nbd_pread: request out of bounds")
	mode := first(h.GetStrictMode())(t)
	if mode != STRICT_MASK {
		t.Error(mode)
	}
	must(t, h.SetStrictMode(mode&^STRICT_BOUNDS))
	// Now the server refuses it.
	wants(t, h.Pread(buf, 1<<20, nil), syscall.EINVAL, "nbd_pread: read: command failed")
	must(t, h.Pread(buf, 0, nil))
}

func TestReadOnly(t *testing.T) {
	h := connected(t, "-r", "memory", "1M")
	if !first(h.IsReadOnly())(t) || first(h.CanTrim())(t) {
		t.Error("it can be written")
	}
	wants(t, h.Pwrite(make([]byte, 512), 0, nil), syscall.EPERM, "nbd_pwrite")
}

func TestServerFails(t *testing.T) {
	h := connected(t, "--filter=error", "memory", "1M", "error=ENOSPC", "error-pwrite-rate=100%")
	err := h.Pwrite(make([]byte, 512), 0, nil)
	wants(t, err, syscall.ENOSPC, "nbd_pwrite: write: command failed: No space left on device")
	must(t, h.Pread(make([]byte, 512), 0, nil))
}

func TestExport(t *testing.T) {
	h := handle(t)
	must(t, h.SetFullInfo(true))
	must(t, h.SetExportName("disk"))
	must(t, h.ConnectUnix(nbdkit(t, "--filter=exportname", "--filter=blocksize-policy", "memory", "1M",
		"exportname-list=explicit", "exportname=disk", "exportdesc=fixed:my words",
		"blocksize-minimum=512", "blocksize-preferred=8192", "blocksize-maximum=1M")))
	for what, is := range map[string]bool{
		*first(h.GetCanonicalExportName())(t): true, *first(h.GetExportName())(t): true,
	} {
		if what != "disk" || !is {
			t.Error(what)
		}
	}
	if words := *first(h.GetExportDescription())(t); words != "my words" {
		t.Error(words)
	}
	for size, is := range map[Size]uint64{SIZE_MINIMUM: 512, SIZE_PREFERRED: 8192, SIZE_MAXIMUM: 1 << 20} {
		if got := first(h.GetBlockSize(size))(t); got != is {
			t.Errorf("block size %d: %d", size, got)
		}
	}
	if *first(h.GetProtocol())(t) != "newstyle-fixed" || !strings.HasPrefix(*first(h.ConnectionState())(t), "READY:") {
		t.Error("protocol or state")
	}
	for name, can := range map[string]func() (bool, error){
		"flush": h.CanFlush, "fua": h.CanFua, "trim": h.CanTrim, "zero": h.CanZero, "df": h.CanDf,
		"multi-conn": h.CanMultiConn, "cache": h.CanCache,
		"structured replies": h.GetStructuredRepliesNegotiated,
	} {
		if !first(can())(t) {
			t.Errorf("it cannot %s", name)
		}
	}
	if first(h.IsRotational())(t) || first(h.GetTlsNegotiated())(t) {
		t.Error("rotational or TLS")
	}
	if first(h.StatsBytesSent())(t) == 0 || first(h.StatsChunksReceived())(t) == 0 {
		t.Error("nothing is counted")
	}
}

// More than 4 GiB in one command needs extended headers.
func TestExtendedHeaders(t *testing.T) {
	h := handle(t)
	must(t, h.ConnectUnix(blkit(t, "memory", "8G")))
	if !first(h.GetExtendedHeadersNegotiated())(t) {
		t.Fatal("no extended headers")
	}
	must(t, h.Pwrite([]byte("some words"), 6<<30, nil))
	must(t, h.Zero(7<<30, 1<<30, nil))
	read := make([]byte, 10)
	must(t, h.Pread(read, 6<<30, nil))
	if !bytes.Equal(read, make([]byte, 10)) {
		t.Errorf("%q", read)
	}
}
