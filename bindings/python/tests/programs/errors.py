# since: 1.24
# server: memory 1M
# Errors: texts, names and numbers.
import sys

import nbd


def tell(call, *arguments, **named):
    try:
        print(call.__name__, "->", call(*arguments, **named))
    except nbd.Error as error:
        print(error.string, "|", error.errno, "|", error.errnum, "|", error)


h = nbd.NBD()
tell(h.pread, 512, 0)
tell(h.get_size)
tell(h.shutdown)
tell(h.get_uri)
tell(h.poll, 0)
tell(h.aio_get_fd)
tell(h.set_strict_mode, 0xFFF)
tell(h.set_handshake_flags, 4)
tell(h.set_tls, 3)
tell(h.set_export_name, "x" * 5000)
tell(h.add_meta_context, "x" * 5000)
tell(h.get_meta_context, 0)
tell(h.connect_command, [])
tell(h.kill_subprocess, 0)
tell(h.connect_uri, "nosuch")
tell(nbd.NBD().connect_uri, "nbd+nosuch://x")
tell(nbd.NBD().connect_unix, "/no/such")
tell(nbd.NBD().connect_tcp, "localhost", "1")
tell(nbd.NBD().connect_socket, -1)
h = nbd.NBD()
h.set_uri_allow_transports(nbd.ALLOW_TRANSPORT_TCP)
tell(h.connect_uri, sys.argv[1])
h = nbd.NBD()
h.connect_uri(sys.argv[1])
tell(h.connect_uri, sys.argv[1])
tell(h.set_export_name, "late")
tell(h.pread, 0, 0)
tell(h.pread, 512, 1 << 20)
tell(h.pread, 512, -1)
tell(h.pread, 512, 0, flags=nbd.CMD_FLAG_FUA)
tell(h.pwrite, b"", 0)
tell(h.pwrite, b"x" * 512, (1 << 20) - 1)
tell(h.zero, 512, 1 << 30)
tell(h.trim, 512, 0, 64)
tell(h.flush, 1)
tell(h.block_status, 512, 0, lambda *_: 0)
tell(h.opt_go)
tell(h.can_meta_context, "base:allocation")
tell(h.get_block_size, 9)
tell(h.get_export_description)
tell(h.get_subprocess_pid)
tell(h.aio_pread, nbd.Buffer(512), 1 << 20)
h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_BOUNDS)
tell(h.pread, 512, 1 << 20)
tell(h.pread, 512, 0)
h.shutdown()
tell(h.pread, 512, 0)
tell(h.aio_in_flight)
