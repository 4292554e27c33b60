"""blkit.aio: asyncio."""

import asyncio
import contextlib
import socket
import time
import unittest

import blkit.aio
import nbd
from peers import Server, command


class Asyncio(unittest.IsolatedAsyncioTestCase):
    async def test_many_tasks_on_one_connection(self):
        contexts = [nbd.CONTEXT_BASE_ALLOCATION]
        with Server("memory", "8M") as server:
            async with blkit.aio.connect(server.uri, contexts) as disk:
                self.assertEqual(disk.handle.get_size(), 8 << 20)

                async def work(number):
                    data = bytes([number]) * 4096
                    for turn in range(20):
                        await disk.pwrite(data, number * 4096)
                        self.assertEqual(await disk.pread(4096, number * 4096), data)

                await asyncio.gather(*(work(number) for number in range(200)))
                await disk.flush()
                found = (await disk.block_status(8 << 20, 0))["base:allocation"]
                self.assertEqual(sum(length for length, _ in found), 8 << 20)
                large = bytearray(4 << 20)
                await disk.pwrite(b"z" * len(large), 4 << 20)
                await disk.pread_into(large, 4 << 20)
                self.assertEqual(large, b"z" * len(large))
                await disk.zero(4096, 0)
                await disk.trim(4096, 0)
                self.assertEqual(await disk.pread(4096, 0), bytes(4096))

    async def test_commands_are_under_way_together(self):
        with Server("--filter=delay", "memory", "1M", "rdelay=100ms") as server:
            async with blkit.aio.connect(server.uri, depth=8) as disk:
                began = time.monotonic()
                await asyncio.gather(*(disk.pread(512, 0) for _ in range(8)))
                together = time.monotonic() - began
                await asyncio.gather(*(disk.pread(512, 0) for _ in range(16)))
                self.assertLess(together, 0.5)
                self.assertGreater(time.monotonic() - began - together, 0.19, "no more than depth")

    async def test_errors(self):
        with self.assertRaises(nbd.Error):
            async with blkit.aio.connect("nbd+unix:///?socket=/no/such"):
                pass
        with Server("memory", "1M") as server:
            async with blkit.aio.connect(server.uri) as disk:
                with self.assertRaises(nbd.Error) as caught:
                    await disk.pread(512, 1 << 20)
                self.assertEqual(caught.exception.errno, "EINVAL")
                disk.handle.set_strict_mode(0)
                with self.assertRaises(nbd.Error) as caught:
                    await disk.pread(512, 1 << 20)
                self.assertEqual(str(caught.exception).count("command failed"), 1)
                self.assertEqual(await disk.pread(1, 0), b"\0")
            with self.assertRaises(nbd.ClosedHandle):
                await disk.flush()
            await disk.close()

    async def test_the_next_address_of_a_host_is_tried(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Not on ::1, which localhost may be too.
        with Server("-p", str(port), "-i", "127.0.0.1", "memory", "1M", socket=False):
            for _ in range(100):
                with contextlib.suppress(nbd.Error):
                    async with blkit.aio.connect("nbd://localhost:%d" % port) as disk:
                        self.assertEqual(await disk.pread(4, 0), bytes(4))
                        return
                await asyncio.sleep(0.05)
            self.fail("nobody listens")

    async def test_a_server_that_goes_away(self):
        handle = nbd.NBD()
        handle.aio_connect_command(command("--filter=delay", "memory", "1M", "rdelay=10"))
        async with blkit.aio.Connection(handle) as disk:
            reads = [asyncio.create_task(disk.pread(512, 0)) for _ in range(4)]
            await asyncio.sleep(0.1)
            handle.kill_subprocess(9)
            for result in await asyncio.gather(*reads, return_exceptions=True):
                self.assertIsInstance(result, nbd.Error)
                self.assertEqual(result.errno, "ENOTCONN")
            with self.assertRaises(nbd.Error):
                await disk.pread(512, 0)

    async def test_cancelled_and_closed(self):
        with Server("--filter=delay", "memory", "1M", "rdelay=300ms") as server:
            async with blkit.aio.connect(server.uri) as disk:
                with self.assertRaises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await disk.pread(512, 0)
                self.assertEqual(await disk.pread(512, 512), bytes(512))
                late = asyncio.create_task(disk.pread(512, 0))
                await asyncio.sleep(0.05)
            with self.assertRaises(nbd.Error):
                await late


if __name__ == "__main__":
    unittest.main()
