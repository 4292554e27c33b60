# since: 1.24
# server: memory 1M
# Handles in with statements, and after their end.
import sys

import nbd

with nbd.nbd() as h:
    h.connect_uri(sys.argv[1])
    print(h.get_size())
for call in (h.get_size, h.close, h.aio_is_ready, h.get_handle_name, h.connection_state):
    try:
        call()
    except nbd.ClosedHandle as error:
        print(type(error).__name__, isinstance(error, ValueError), error)
try:
    with nbd.nbd() as h:
        h.close()
    print("left")
except nbd.ClosedHandle:
    print("closed twice")
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.shutdown()
print(h.aio_is_closed(), h.connection_state())
h.own = 5
print(h.own)


class Own(nbd.NBD):
    def __init__(self, uri):
        super().__init__()
        self.connect_uri(uri)


print(Own(sys.argv[1]).get_size())
try:
    raise nbd.Error("text", 2)
except nbd.Error as error:
    print(str(error), error.string, error.errno, error.errnum, error.args)
