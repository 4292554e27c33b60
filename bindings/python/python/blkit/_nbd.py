"""The module nbd: libnbd's calls. See the module nbd, which is this one under its known name."""

import contextlib
import errno as _errno
import operator as _operator

from blkit import _native
from blkit._native import *  # noqa: F401,F403: the constants

package_name = "libnbd"
__version__ = _native.VERSION


class Error(Exception):
    """What a call raises when it fails.

    string: what happened, with the name of the call.
    errno:  the name of the error number, as 'EINVAL', or None.
    errnum: the error number, or 0.
    """

    @property
    def string(self):
        """What happened, with the name of the call."""
        return self.args[0]

    @property
    def errno(self):
        """The name of the error number, or None."""
        return _errno.errorcode.get(self.errnum)

    @property
    def errnum(self):
        """The error number, or 0."""
        return self.args[1]

    def __str__(self):
        name = self.errno
        return "%s (%s)" % (self.string, name) if name else str(self.string)


class ClosedHandle(ValueError):
    """A call on a handle after its close()."""


class Buffer:
    """Memory for aio_pread and aio_pwrite.

    Any object with a writable buffer will do in its place (bytearray, array, memoryview, mmap, ...).
    """

    def __init__(self, len):
        """A new buffer of len bytes."""
        self._o = bytearray(_operator.index(len))

    @classmethod
    def _of(cls, inner):
        self = cls.__new__(cls)
        self._o = inner
        return self

    @classmethod
    def from_bytearray(cls, ba):
        """A buffer with a copy of these bytes."""
        return cls._of(bytearray(ba))

    @classmethod
    def from_buffer(cls, buf):
        """A buffer that shares the memory of another object."""
        memoryview(buf).release()
        return cls._of(buf)

    def to_bytearray(self):
        """A copy as a bytearray."""
        return bytearray(self._o)

    def to_buffer(self):
        """The object whose memory this is; changes are seen on both sides."""
        return self._o

    def size(self):
        """How long it is."""
        return len(self._o)

    def is_zero(self, offset=0, size=-1):
        """Whether size bytes (-1: all there are) from offset on are zero."""
        return _native.is_zero(self._o, offset, size)

    def __len__(self):
        return len(self._o)

    def __getitem__(self, key):
        return self._o[key]

    def __setitem__(self, key, newvalue):
        self._o[key] = newvalue


class NBD(_native.NBD):
    """One connection to an NBD server: libnbd's handle.

    Create it, set what you want, connect (connect_uri, connect_tcp, ...), then read and write. For each call
    that waits there is one beginning with aio_ that does not; poll() makes such commands progress.
    """


@contextlib.contextmanager
def nbd():
    """A handle for a with statement, which closes it at the end."""
    handle = NBD()
    try:
        yield handle
    finally:
        handle.close()


__all__ = [name for name in _native.__dict__ if name.isupper() and name != "VERSION"]
__all__ += ["Buffer", "ClosedHandle", "Error", "NBD", "nbd", "package_name"]
for _class in (Buffer, ClosedHandle, Error, NBD):
    _class.__module__ = "nbd"
nbd.__module__ = "nbd"
del _class
