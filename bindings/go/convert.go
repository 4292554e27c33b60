package libnbd

// #include "support.h"
import "C"

import (
	"math"
	"strings"
	"syscall"
	"unsafe"
)

// What C gets for the memory of a slice that has none.
var nothing [1]byte

// cText makes a text of C, which is to be freed. C's end at the first NUL, and so one inside is an
// error and not another text.
func cText(op, name, text string) (*C.char, *LibnbdError) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, refused(op, syscall.EINVAL, "there is a NUL in %s", name)
	}
	return C.CString(text), nil
}

// cTexts makes a list of texts that ends with NULL, which is to be freed by freeTexts.
func cTexts(op, name string, texts []string) (**C.char, *LibnbdError) {
	list := (**C.char)(C.calloc(C.size_t(len(texts)+1), C.size_t(unsafe.Sizeof((*C.char)(nil)))))
	if list == nil {
		return nil, refused(op, syscall.ENOMEM, "%s is too long", name)
	}
	words := unsafe.Slice(list, len(texts)+1)
	for i, text := range texts {
		word, err := cText(op, name, text)
		if err != nil {
			freeTexts(list)
			return nil, err
		}
		words[i] = word
	}
	return list, nil
}

func freeTexts(list **C.char) {
	for at := list; *at != nil; at = (**C.char)(unsafe.Add(unsafe.Pointer(at), unsafe.Sizeof(*at))) {
		C.free(unsafe.Pointer(*at))
	}
	C.free(unsafe.Pointer(list))
}

// cInt is a number that C has 32 bits for.
func cInt(op, name string, value int) (C.int, *LibnbdError) {
	if value < math.MinInt32 || value > math.MaxInt32 {
		return 0, refused(op, syscall.ERANGE, "%s is %d", name, value)
	}
	return C.int(value), nil
}

// goText copies a text of C.
func goText(text *C.char) *string {
	copied := C.GoString(text)
	return &copied
}
