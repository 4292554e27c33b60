// A program for libguestfs.org/libnbd: nothing in it knows of blkit. It tells about a disk, as
// programs do that migrate them.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"

	"libguestfs.org/libnbd"
)

// What such programs want of a handle, to have another one in their tests.
type disk interface {
	GetSize() (uint64, error)
	Pread([]byte, uint64, *libnbd.PreadOptargs) error
	BlockStatus(uint64, uint64, libnbd.ExtentCallback, *libnbd.BlockStatusOptargs) error
	Close() *libnbd.LibnbdError
}

var _ disk = (*libnbd.Libnbd)(nil)

var one = libnbd.BlockStatusOptargs{Flags: libnbd.CMD_FLAG_REQ_ONE, FlagsSet: true}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(uri string) *libnbd.Libnbd {
	h, err := libnbd.Create()
	check(err)
	check(h.AddMetaContext("base:allocation"))
	check(h.ConnectUri(uri))
	return h
}

// walk reads what is data.
func walk(d disk) {
	size, err := d.GetSize()
	check(err)
	for at := uint64(0); at < size; {
		var length, flags uint32
		check(d.BlockStatus(size-at, at, func(context string, offset uint64, extents []uint32, err *int) int {
			if *err != 0 || context != "base:allocation" || len(extents)%2 != 0 {
				return -1
			}
			length, flags = extents[0], extents[1]
			return 0
		}, &one))
		if flags&(libnbd.STATE_HOLE|libnbd.STATE_ZERO) == 0 {
			data := make([]byte, length)
			check(d.Pread(data, at, nil))
			fmt.Printf("%d %d %x\n", at, length, sha256.Sum256(data))
		}
		at += uint64(length)
	}
}

// asynchronous reads the beginning with several commands at once.
func asynchronous(h *libnbd.Libnbd) {
	const n = 8
	var buffers [n]libnbd.AioBuffer
	done := 0
	for i := range buffers {
		buffers[i] = libnbd.MakeAioBuffer(8192)
		defer buffers[i].Free()
		var optargs libnbd.AioPreadOptargs
		optargs.CompletionCallbackSet = true
		optargs.CompletionCallback = func(err *int) int {
			if *err != 0 {
				panic(*err)
			}
			done++
			return 1
		}
		_, err := h.AioPread(buffers[i], uint64(i)*8192, &optargs)
		check(err)
	}
	for done < n {
		_, err := h.Poll(-1)
		check(err)
	}
	sum := sha256.New()
	for i := range buffers {
		sum.Write(buffers[i].Slice())
	}
	fmt.Printf("%x\n", sum.Sum(nil))
}

func main() {
	h := open(os.Args[1])
	defer h.Close()
	version, err := h.GetVersion()
	check(err)
	fmt.Println(strings.HasPrefix(*version, "1."))
	walk(h)
	asynchronous(h)
	err = h.Pread(make([]byte, 512), 1<<60, nil)
	if failed, is := err.(*libnbd.LibnbdError); is {
		fmt.Println(failed.Op, int(failed.Errno))
	}
}
