# since: 1.14
# server: memory 1M
# The handshake in steps.
import sys

import nbd

h = nbd.NBD()
h.set_opt_mode(True)
h.set_full_info(True)
h.connect_uri(sys.argv[1])
print(h.connection_state(), h.aio_is_negotiating())
print(h.opt_list(lambda name, description: print("export", repr(name), repr(description))))
print(h.opt_list_meta_context(lambda name: print("context", name)))
h.add_meta_context("base:allocation")
h.add_meta_context("no:such")
print(h.get_nr_meta_contexts(), h.get_meta_context(1))
print(h.opt_list_meta_context(lambda name: print("context", name)))
h.opt_info()
print(h.get_size(), h.is_read_only(), h.can_meta_context("base:allocation"))
print(repr(h.get_canonical_export_name()))
done = []
h.aio_opt_list(lambda *told: print("export", told), completion=lambda error: done.append(error.value))
while not done:
    h.poll(-1)
print(done)
try:
    h.pread(512, 0)
except nbd.Error as error:
    print(error)
h.opt_go()
print(h.connection_state(), h.pread(4, 0))
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
h.opt_abort()
print(h.aio_is_closed())

h = nbd.NBD()
h.aio_connect_uri(sys.argv[1])
while h.aio_is_connecting():
    h.poll(-1)
print(h.aio_is_ready(), h.get_size())
