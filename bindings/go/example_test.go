package libnbd_test

import (
	"fmt"

	"libguestfs.org/libnbd"
)

// From libnbd-golang(3): the size of a disk.
func Example() {
	h, err := libnbd.Create()
	if err != nil {
		panic(err)
	}
	defer h.Close()
	uri := "nbd://localhost"
	err = h.ConnectUri(uri)
	if err != nil {
		panic(err)
	}
	size, err := h.GetSize()
	if err != nil {
		panic(err)
	}
	fmt.Printf("size of %s = %d\n", uri, size)
}

// Several commands at once, in a loop around Poll.
func ExampleLibnbd_AioPread() {
	h, err := libnbd.Create()
	if err != nil {
		panic(err)
	}
	defer h.Close()
	if err := h.ConnectUri("nbd://localhost"); err != nil {
		panic(err)
	}
	const size = 65536
	reading := 0
	for i := uint64(0); i < 16; i++ {
		buf := libnbd.MakeAioBuffer(size)
		_, err := h.AioPread(buf, i*size, &libnbd.AioPreadOptargs{
			CompletionCallbackSet: true,
			CompletionCallback: func(error *int) int {
				defer buf.Free()
				if *error == 0 {
					fmt.Printf("%x\n", buf.Slice()[:16])
				}
				reading--
				return 1
			},
		})
		if err != nil {
			buf.Free()
			panic(err)
		}
		reading++
	}
	for reading > 0 {
		if _, err := h.Poll(-1); err != nil {
			panic(err)
		}
	}
}

// Where the disk has data.
func ExampleLibnbd_BlockStatus64() {
	h, err := libnbd.Create()
	if err != nil {
		panic(err)
	}
	defer h.Close()
	if err := h.AddMetaContext(libnbd.CONTEXT_BASE_ALLOCATION); err != nil {
		panic(err)
	}
	if err := h.ConnectUri("nbd://localhost"); err != nil {
		panic(err)
	}
	size, err := h.GetSize()
	if err != nil {
		panic(err)
	}
	for at := uint64(0); at < size; {
		err := h.BlockStatus64(size-at, at, func(_ string, offset uint64, extents []libnbd.LibnbdExtent, _ *int) int {
			for _, extent := range extents {
				if extent.Flags&libnbd.STATE_HOLE == 0 {
					fmt.Println("data:", offset, extent.Length)
				}
				offset += extent.Length
			}
			at = offset
			return 0
		}, nil)
		if err != nil {
			panic(err)
		}
	}
}
