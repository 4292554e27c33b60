# since: 1.24
# server: memory 1M
# Calls newer than 1.16.
import os
import sys

import nbd

h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
h.pwrite(b"x" * 4096, 65536)


def extent(context, offset, entries, error):
    print(context, offset, entries, error.value)


h.block_status_64(1 << 20, 0, extent)
h.block_status_64(count=4096, offset=65536, extent64=extent, flags=nbd.CMD_FLAG_REQ_ONE)
done = []
h.aio_block_status_64(4096, 65536, extent, completion=lambda error: done.append(error.value) or 1)
reader, writer = os.pipe()
while not done:
    h.poll2(reader, -1)
print(done, h.poll2(reader, 0), h.poll2(-1, 0))
os.write(writer, b"x")
print(h.poll2(reader, -1))
print(h.get_extended_headers_negotiated(), h.get_structured_replies_negotiated())
print(h.can_block_status_payload())
try:
    h.block_status_filter(4096, 0, ["base:allocation"], extent)
except nbd.Error as error:
    print(error)
try:
    h.block_status_filter(4096, 0, "base:allocation", extent)
except TypeError:
    print("TypeError")
for name in ("get_subprocess_pid", "kill_subprocess"):
    try:
        getattr(h, name)(*([0] if name.startswith("kill") else []))
    except nbd.Error as error:
        print(error)
c = nbd.NBD()
c.connect_command(["nbdkit", "-s", "--exit-with-parent", "memory", "1M"])
print(c.get_size(), c.get_subprocess_pid() > 1)
c.kill_subprocess(0)
