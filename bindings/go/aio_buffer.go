package libnbd

// #include <stdlib.h>
import "C"

import "unsafe"

// An AioBuffer is memory for the commands that are not waited for. It is C's memory, which stays
// where it is: Go's may not be used by C once the call has returned. Free it when its command has
// completed; the garbage collector does not.
type AioBuffer struct {
	P    unsafe.Pointer // where it begins; nil once freed
	Size uint           // in bytes
}

// MakeAioBuffer makes a buffer with anything in it.
func MakeAioBuffer(size uint) AioBuffer {
	return AioBuffer{C.malloc(atLeastOne(size)), size}
}

// MakeAioBufferZero makes a buffer of zeroes. It may be cheaper than to write them.
func MakeAioBufferZero(size uint) AioBuffer {
	made := C.calloc(1, atLeastOne(size))
	if made == nil {
		// As malloc does in Go.
		panic("libnbd: out of memory")
	}
	return AioBuffer{made, size}
}

// FromBytes makes a buffer with a copy of buf in it.
func FromBytes(buf []byte) AioBuffer {
	made := MakeAioBuffer(uint(len(buf)))
	copy(made.Slice(), buf)
	return made
}

// The library asks for an address even of no bytes.
func atLeastOne(size uint) C.size_t {
	if size == 0 {
		size = 1
	}
	return C.size_t(size)
}

// Free gives the memory back. To do it again does nothing; copies of b must not be used any more.
func (b *AioBuffer) Free() {
	C.free(b.P)
	b.P = nil
}

// Bytes copies the content. It panics if the buffer is freed.
func (b *AioBuffer) Bytes() []byte {
	return append([]byte{}, b.Slice()...)
}

// Slice is the memory itself, without a copy: not to be used once it is freed. It panics if the
// buffer is freed already.
func (b *AioBuffer) Slice() []byte {
	if b.P == nil {
		panic("libnbd: the AioBuffer is freed")
	}
	return unsafe.Slice((*byte)(b.P), int(b.Size))
}

// Get is the address of a byte. It panics if there is no such byte, or the buffer is freed.
func (b *AioBuffer) Get(i uint) *byte {
	return &b.Slice()[i]
}

// Ptr is the address of the memory.
func (b *AioBuffer) Ptr() unsafe.Pointer {
	return b.P
}
