package libnbd

// #include "zshims.h"
// #include <sys/un.h>
// #include <netinet/in.h>
import "C"

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// AioConnect calls nbd_aio_connect(3), which takes the address of a socket. Here it is a text: the
// path of a Unix socket, which has a "/" in it; "@" and the name of an abstract one; or an IP address
// and a port, as in "127.0.0.1:10809" and "[fe80::1%2]:10809". Names of hosts and ports are for
// AioConnectTcp.
func (h *Libnbd) AioConnect(addr string) error {
	nbd, err := h.enter("aio_connect")
	if err != nil {
		return err
	}
	defer h.leave()
	// Room for the address of any kind of socket.
	var place C.struct_sockaddr_storage
	length, err := putAddress(&place, addr)
	if err != nil {
		return err
	}
	got := C.libnbd_go_aio_connect(nbd, (*C.struct_sockaddr)(unsafe.Pointer(&place)), length)
	if got.value == -1 {
		return failed("aio_connect", got.why)
	}
	return nil
}

func putAddress(place *C.struct_sockaddr_storage, addr string) (C.socklen_t, *LibnbdError) {
	if strings.HasPrefix(addr, "@") || strings.Contains(addr, "/") {
		return putUnix((*C.struct_sockaddr_un)(unsafe.Pointer(place)), addr)
	}
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, refused("aio_connect", syscall.EINVAL, "%q is neither the path of a Unix socket nor IP:PORT", addr)
	}
	var port *[2]byte
	var bytes []byte
	var length C.socklen_t
	ip := parsed.Addr()
	if ip.Is4() {
		in := (*C.struct_sockaddr_in)(unsafe.Pointer(place))
		in.sin_family, length = C.AF_INET, C.sizeof_struct_sockaddr_in
		port, bytes = (*[2]byte)(unsafe.Pointer(&in.sin_port)), unsafe.Slice((*byte)(unsafe.Pointer(&in.sin_addr)), 4)
	} else {
		in := (*C.struct_sockaddr_in6)(unsafe.Pointer(place))
		in.sin6_family, length = C.AF_INET6, C.sizeof_struct_sockaddr_in6
		port, bytes = (*[2]byte)(unsafe.Pointer(&in.sin6_port)), unsafe.Slice((*byte)(unsafe.Pointer(&in.sin6_addr)), 16)
		scope, err := scopeOf(ip.Zone())
		if err != nil {
			return 0, err
		}
		in.sin6_scope_id = scope
	}
	port[0], port[1] = byte(parsed.Port()>>8), byte(parsed.Port())
	copy(bytes, ip.AsSlice())
	return length, nil
}

func putUnix(un *C.struct_sockaddr_un, path string) (C.socklen_t, *LibnbdError) {
	room := unsafe.Slice((*byte)(unsafe.Pointer(&un.sun_path)), len(un.sun_path))
	length := len(path)
	if path[0] != '@' {
		length++ // the NUL behind a path
		if strings.IndexByte(path, 0) >= 0 {
			return 0, refused("aio_connect", syscall.EINVAL, "there is a NUL in addr")
		}
	}
	if length > len(room) {
		return 0, refused("aio_connect", syscall.ENAMETOOLONG, "%q", path)
	}
	un.sun_family = C.AF_UNIX
	copy(room, path)
	if path[0] == '@' {
		room[0] = 0
	}
	return C.socklen_t(unsafe.Offsetof(un.sun_path)) + C.socklen_t(length), nil
}

// scopeOf is the number of an interface: zones are names, or numbers already.
func scopeOf(zone string) (C.uint32_t, *LibnbdError) {
	if zone == "" {
		return 0, nil
	}
	if number, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return C.uint32_t(number), nil
	}
	found, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, refused("aio_connect", syscall.EINVAL, "%v", err)
	}
	return C.uint32_t(found.Index), nil
}
