"""An NBD connection for asyncio.

    async with blkit.aio.connect("nbd://localhost") as disk:
        first, second = await asyncio.gather(disk.pread(4096, 0), disk.pread(4096, 8192))

Every call is a command on its own; so many can be under way as there are tasks that wait, up to depth. The event loop
watches the connection: there is no thread.
"""

import asyncio
import os

from blkit import _nbd


class Connection:
    """A handle of the module nbd that an event loop drives.

    While it is here, do not use poll() or calls that wait on the handle itself.
    """

    def __init__(self, handle, depth=64):
        """Takes a handle that has begun to connect. At most depth commands are waited for at a time."""
        self.handle = handle
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(depth)
        self._watched = None
        self._settled = self._loop.create_future()
        self._watch()

    async def connected(self):
        """Waits until the handle has connected, or raises why it could not."""
        await asyncio.shield(self._settled)

    async def pread(self, count, offset, flags=0):
        """Read count bytes from offset. Returns a bytearray."""
        buffer = bytearray(count)
        await self._command("pread", buffer, offset, flags=flags)
        return buffer

    async def pread_into(self, buffer, offset, flags=0):
        """Fill buffer from offset."""
        await self._command("pread", buffer, offset, flags=flags)

    async def pwrite(self, data, offset, flags=0):
        """Write a bytes-like object at offset. It must stay unchanged meanwhile."""
        await self._command("pwrite", data, offset, flags=flags)

    async def flush(self, flags=0):
        """Return when everything that was written before is on the medium."""
        await self._command("flush", flags=flags)

    async def zero(self, count, offset, flags=0):
        """Write zeroes."""
        await self._command("zero", count, offset, flags=flags)

    async def trim(self, count, offset, flags=0):
        """Say that a range is not needed any more."""
        await self._command("trim", count, offset, flags=flags)

    async def cache(self, count, offset, flags=0):
        """Ask the server to load a range into its cache."""
        await self._command("cache", count, offset, flags=flags)

    async def block_status(self, count, offset, flags=0):
        """What is in a range: a dictionary of metadata contexts, each with a list of pairs (length, flags)."""
        found = {}

        def extent(context, offset, entries, error):
            found.setdefault(context, []).extend(entries)

        await self._command("block_status_64", count, offset, extent, flags=flags)
        return found

    async def close(self):
        """End the connection politely, and close the handle. Commands under way fail."""
        if self.handle is None:
            return
        handle, self.handle = self.handle, None
        self._unwatch()
        try:
            if handle.aio_is_ready() or handle.aio_is_processing():
                handle.aio_disconnect()
        except _nbd.Error:
            pass  # it has just ended by itself
        handle.close()
        if not self._settled.done():
            self._settled.cancel()

    async def __aenter__(self):
        try:
            await self.connected()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def _command(self, name, *arguments, **named):
        async with self._slots:
            if self.handle is None:
                raise _nbd.ClosedHandle("libnbd: method called on closed handle")
            future = self._loop.create_future()

            def completion(error):
                # Inside of the handle: nothing but the future may be touched. A task that was cancelled is not told;
                # its command goes on, with its buffer.
                if not future.done():
                    future.set_result(error.value)
                return 1

            getattr(self.handle, "aio_" + name)(*arguments, completion=completion, **named)
            self._watch()
            number = await future
        if number:
            raise _nbd.Error("nbd_%s: command failed: %s" % (name, os.strerror(number)), number)

    def _notified(self, notify):
        if self.handle.aio_is_connecting():
            # It may take the next address of the host, with a new socket of the same number.
            self._unwatch()
        wanted = self.handle.aio_get_direction()
        try:
            if notify == "read" and wanted & _nbd.AIO_DIRECTION_READ:
                self.handle.aio_notify_read()
            elif notify == "write" and wanted & _nbd.AIO_DIRECTION_WRITE:
                self.handle.aio_notify_write()
        except _nbd.Error as error:
            self._settle(error)  # commands under way have been told by their completions
        self._watch()

    def _settle(self, error=None):
        if self._settled.done():
            return
        if error is None:
            self._settled.set_result(None)
            return
        self._settled.set_exception(error)
        self._settled.exception()  # nobody has to ask for it

    def _watch(self):
        """Has the loop watch for what the handle waits for now."""
        if not self.handle.aio_is_connecting() and not self.handle.aio_is_dead():
            self._settle()
        wanted = self.handle.aio_get_direction()
        if not wanted:
            self._unwatch()
            return
        number = self.handle.aio_get_fd()
        self._watched = number
        if wanted & _nbd.AIO_DIRECTION_READ:
            self._loop.add_reader(number, self._notified, "read")
        else:
            self._loop.remove_reader(number)
        if wanted & _nbd.AIO_DIRECTION_WRITE:
            self._loop.add_writer(number, self._notified, "write")
        else:
            self._loop.remove_writer(number)

    def _unwatch(self):
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._loop.remove_writer(self._watched)
            self._watched = None


def connect(uri, contexts=(), depth=64):
    """Connects to a server, for async with: with these metadata contexts, and at most depth commands at a time."""
    handle = _nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    handle.aio_connect_uri(uri)
    return Connection(handle, depth)
