# since: 1.14
# server: data 'data=@65536 1*512' size=1M
# Structured reads and their results.
import sys

import nbd

h = nbd.NBD()
h.connect_uri(sys.argv[1])


def chunk(part, offset, status, error):
    told.append((offset, len(part), status, error.value, sum(part)))


for offset, count in ((0, 512), (65536, 512), (0, 1 << 20)):
    told = []
    data = h.pread_structured(count, offset, chunk)
    print(count, offset, type(data).__name__, sum(data))
    print(sum(part[1] for part in told), sum(part[4] for part in told), {part[3] for part in told})
told = []
h.pread_structured(1 << 16, 0, chunk=chunk, flags=nbd.CMD_FLAG_DF)
print(len(told), told[0][:2])
kept = []
h.pread_structured(512, 65536, lambda part, *_: kept.append(part))
print(bytes(kept[0]) == b"\1" * 512, kept[0].readonly, kept[0].format)
buf = bytearray(512)
told = []
cookie = h.aio_pread_structured(buf, 65536, chunk, completion=lambda error: 0)
while not h.aio_command_completed(cookie):
    h.poll(-1)
print(told, buf == b"\1" * 512)
