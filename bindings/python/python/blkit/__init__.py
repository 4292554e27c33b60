"""blkit: disks of every kind from Python.

    import blkit
    with blkit.open("nbd://localhost") as disk:
        print(disk.size, disk.read(512, 0))

blkit.open opens any source of blkit; blkit.nbd is the module nbd, libnbd's calls; blkit.aio drives it from
asyncio; blkit.shell is the shell over it (nbdsh).
"""

from blkit import _nbd as nbd
from blkit._native import VERSION as __version__  # noqa: F401
from blkit._native import Disk, open

__all__ = ["Disk", "nbd", "open"]
