"""blkit: disks of every kind from Python.

blkit.nbd is the module nbd, libnbd's calls; blkit.shell the shell over it (nbdsh).
"""

from blkit import _nbd as nbd  # noqa: F401
from blkit._native import VERSION as __version__  # noqa: F401
