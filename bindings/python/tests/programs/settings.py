# since: 1.24
# Defaults, and what is set is got.
import nbd

h = nbd.NBD()
flags = """debug full_info opt_mode pread_initialize request_block_size request_extended_headers
request_meta_context request_structured_replies tls_verify_peer""".split()
for name in flags:
    getter, setter = getattr(h, "get_" + name), getattr(h, "set_" + name)
    print(name, getter(), end=" ")
    if name != "debug":
        for value in (True, False, 1, 0, "text", None):
            setter(value)
            print(getter(), end=" ")
    print()
for name, values in {
    "export_name": ["", "x", "ü\N{GRINNING FACE}"],
    "socket_activation_name": ["", "disk1"],
    "handle_name": ["x"],
    "tls_username": ["u"],
    "tls_hostname": ["h"],
    "tls": [0, 1],
    "handshake_flags": [0, 1, 2, 3],
    "strict_mode": [0, 1, 127],
    "private_data": [0, 42],
}.items():
    for value in values:
        getattr(h, "set_" + name)(value)
        print(name, getattr(h, "get_" + name)())
print(h.set_private_data(7), h.set_private_data(8))
h.clear_meta_contexts()
for name in ("a:b", "base:allocation"):
    h.add_meta_context(name)
print([h.get_meta_context(i) for i in range(h.get_nr_meta_contexts())])
h.clear_meta_contexts()
print(h.get_nr_meta_contexts())
for uri in ("nbd://x", "nbds+unix:///", "x", "http://x", "NBD+VSOCK://1"):
    print(uri, h.is_uri(uri))
print(h.supports_tls(), h.supports_uri(), h.supports_vsock())
print(h.aio_is_created(), h.aio_get_direction(), h.connection_state(), h.get_package_name())
print(h.stats_bytes_sent(), h.stats_chunks_received())
