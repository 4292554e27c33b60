# since: 1.24
# server: memory 1M
# Results, exceptions and the order of callbacks.
import sys

import nbd

sys.stderr = sys.stdout
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])


class Freed:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("free", self.name)


def callback(name, result, number=None):
    freed = Freed(name)

    def called(*arguments):
        print("call", freed.name)
        if number is not None:
            arguments[-1].value = number
        return result

    return called


def tell(call, *arguments, **named):
    try:
        call(*arguments, **named)
        print("fine")
    except nbd.Error as error:
        print(error)


def finish(cookie):
    while h.aio_in_flight() > 0:
        h.poll(-1)
    tell(h.aio_command_completed, cookie)


for result in (None, 0, 1, -1, True, "text", 1 << 40):
    tell(h.block_status, 512, 0, callback("extent", result))
for number in (0, 28, 75):
    tell(h.block_status_64, 512, 0, callback("extent", -1, number))
    tell(h.pread_structured, 512, 0, callback("chunk", -1, number))
    finish(h.aio_flush(callback("completion", -1, number)))
    finish(h.aio_flush(callback("completion", 1, number)))
finish(h.aio_pread_structured(bytearray(512), 0, callback("chunk", 0), callback("completion", 1)))
tell(h.aio_pread_structured, bytearray(512), 1 << 30, callback("chunk", 0), callback("completion", 1))
h.set_debug_callback(callback("debug", 0))
h.clear_debug_callback()
cookie = h.aio_flush(callback("closing", 1))
h.close()
print("closed")
