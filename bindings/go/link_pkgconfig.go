//go:build !libnbd_no_pkgconfig

package libnbd

// With the tag libnbd_no_pkgconfig, CGO_CFLAGS and CGO_LDFLAGS say where header and library are.

// #cgo pkg-config: libnbd
import "C"
