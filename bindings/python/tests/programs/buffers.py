# since: 1.24
# server: memory 1M
# nbd.Buffer.
import array
import sys

import nbd

b = nbd.Buffer(16)
print(b.size(), len(b), b[0], b[3:5], b.is_zero())
b[0] = 255
b[1:3] = b"xy"
print(b.to_bytearray(), b.to_buffer() is b.to_buffer(), b.to_bytearray() is b.to_buffer(), bytes(b))
print(b.is_zero(), b.is_zero(3), b.is_zero(0, 1), b.is_zero(3, 4), b.is_zero(4, 0), b.is_zero(size=0))
tries = [lambda: b[99], lambda: b["x"], lambda: b[0:99], lambda: b[-1]]
for arguments in ((16,), (17,), (100,), (3, 100), (0, 100), (-1,), (0, -2), (16, 1), (16, 0), (17, 0), (3, 13), (3, 14)):
    tries.append(lambda arguments=arguments: (arguments, b.is_zero(*arguments)))
for attempt in tries:
    try:
        print(attempt())
    except (IndexError, TypeError) as error:
        print(type(error).__name__)
o = bytearray(b"shared")
s, c = nbd.Buffer.from_buffer(o), nbd.Buffer.from_bytearray(o)
s[0] = 83
print(o, c.to_bytearray(), s.to_buffer() is o)
o.extend(b" more")
print(s.size(), s.to_bytearray())
words = nbd.Buffer.from_buffer(array.array("I", [1, 0, 0, 2]))
print(len(words), words.size(), words.to_bytearray(), words[3])
print(words.is_zero(), words.is_zero(4, 8), words.is_zero(4, 9), words.is_zero(13))
h = nbd.NBD()
h.connect_uri(sys.argv[1])


def wait(cookie):
    while not h.aio_command_completed(cookie):
        h.poll(-1)


wait(h.aio_pwrite(words, 512))
print(h.pread(16, 512))
target = array.array("H", bytes(16))
wait(h.aio_pread(target, 512))
print(target)
wait(h.aio_pread(nbd.Buffer.from_buffer(memoryview(o)[1:3]), 512))
print(o)
wait(h.aio_pwrite(b"constant", 1024))
print(h.pread(8, 1024))
