"""NBD clients, with the calls of libnbd's module of this name.

    import nbd
    with nbd.nbd() as h:
        h.connect_uri("nbd://localhost")
        print(h.get_size())
        print(h.pread(512, 0))

The calls are described at nbd.NBD, and in libnbd's manual pages: h.pread is nbd_pread(3).
"""

from blkit._nbd import *  # noqa: F401,F403
from blkit._nbd import __version__  # noqa: F401
