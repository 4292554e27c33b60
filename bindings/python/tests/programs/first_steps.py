# since: 1.14
# server: memory 1M
# What the manual page of the module shows first.
import sys

import nbd

h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])
print(h.get_size(), h.get_protocol(), h.connection_state())
h.pwrite(b"hello, world", 65536)
print("%r" % h.pread(16, 65536))
h.pwrite(bytearray(b"again"), 65543, nbd.CMD_FLAG_FUA)
print(h.pread(count=16, offset=65536, flags=0))
h.flush()
h.cache(4096, 65536)
h.zero(4096, 65536)
print(h.pread(16, 65536))
h.pwrite(b"x", 0)
h.trim(32768, 65536, flags=nbd.CMD_FLAG_FUA)


def extent(context, offset, entries, error):
    print(context, offset, entries, error.value)


h.block_status(h.get_size(), 0, extent)
h.block_status(h.get_size(), 0, extent, nbd.CMD_FLAG_REQ_ONE)
names = "is_read_only is_rotational can_flush can_fua can_trim can_zero can_fast_zero can_df can_multi_conn can_cache"
for name in names.split():
    print(name, getattr(h, name)())
print(h.can_meta_context("base:allocation"), h.can_meta_context("no:such"))
print(h.get_uri() == sys.argv[1], h.get_tls_negotiated(), h.get_structured_replies_negotiated())
h.shutdown()
print(h.connection_state(), h.aio_is_closed())
