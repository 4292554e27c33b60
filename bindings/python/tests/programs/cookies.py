# since: 1.14
# server: memory 1M
# Commands by their cookies.
import sys

import nbd

h = nbd.NBD()
h.connect_uri(sys.argv[1])
buf = nbd.Buffer.from_bytearray(bytearray(b"0123456789abcdef") * 32)
first = h.aio_pwrite(buf, 0)
print("cookies", first, h.aio_flush(), h.aio_zero(512, 512), h.aio_trim(512, 1024))
while h.aio_in_flight() > 0:
    h.poll(-1)
print(h.aio_peek_command_completed() in (1, 2, 3, 4))
print([h.aio_command_completed(cookie) for cookie in (1, 2, 3, 4)])
print([h.aio_command_completed(cookie) for cookie in (1, 99)])
for wrong in (0,):
    try:
        h.aio_command_completed(wrong)
    except nbd.Error as error:
        print(error)
try:
    h.aio_peek_command_completed()
except nbd.Error as error:
    print(error)
back = nbd.Buffer(16)
cookie = h.aio_pread(back, 16)
while not h.aio_command_completed(cookie):
    h.poll(-1)
print(cookie, back.to_bytearray())
print(h.poll(0), h.aio_is_ready(), h.aio_is_processing(), h.aio_is_dead())
for wrong in ("no", 5, None):
    try:
        h.aio_pread(wrong, 0)
    except TypeError:
        print("TypeError")
try:
    h.aio_pread(b"constant", 0)
except BufferError as error:
    print("BufferError", error)
