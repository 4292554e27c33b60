# since: 1.14
# server: pattern 8M
# server: memory 8M
# A copy between two servers with many commands under way, as in the examples of the manual page.
import select
import sys

import nbd

BLOCK = 128 * 1024
MOST = 16

src, dst = nbd.NBD(), nbd.NBD()
src.set_handle_name("src")
dst.set_handle_name("dst")
src.connect_uri(sys.argv[1])
dst.connect_uri(sys.argv[2])
size = src.get_size()
position = written = 0


def wrote(buf, error):
    global written
    if error.value:
        print("write failed", error.value)
    written += buf.size()
    return 1


def was_read(buf, offset, error):
    if error.value:
        print("read failed", error.value)
    dst.aio_pwrite(buf, offset, completion=lambda error: wrote(buf, error))
    return 1


def events(h):
    direction = h.aio_get_direction()
    wanted = 0
    if direction & nbd.AIO_DIRECTION_READ:
        wanted |= select.POLLIN
    if direction & nbd.AIO_DIRECTION_WRITE:
        wanted |= select.POLLOUT
    return wanted


while written < size:
    while position < size and src.aio_in_flight() + dst.aio_in_flight() < MOST:
        buf = nbd.Buffer(min(BLOCK, size - position))
        src.aio_pread(
            buf, position, completion=lambda error, b=buf, o=position: was_read(b, o, error)
        )
        position += buf.size()
    poll = select.poll()
    handles = {h.aio_get_fd(): h for h in (src, dst)}
    for fd, h in handles.items():
        poll.register(fd, events(h))
    for fd, event in poll.poll():
        h = handles[fd]
        direction = h.aio_get_direction()
        if event & select.POLLIN and direction & nbd.AIO_DIRECTION_READ:
            h.aio_notify_read()
        elif event & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
            h.aio_notify_write()

print(position, written, src.aio_in_flight(), dst.aio_in_flight())
for offset in range(0, size, 1 << 20):
    a, b = src.pread(1 << 20, offset), dst.pread(1 << 20, offset)
    print(offset, a == b, a[:8].hex(), b[-8:].hex())
src.shutdown()
dst.shutdown()
