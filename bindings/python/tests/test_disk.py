"""blkit.open and what it opens."""

import array
import errno
import inspect
import os
import tempfile
import threading
import unittest

import blkit
from peers import Server


class Disks(unittest.TestCase):
    def test_memory(self):
        with blkit.open("memory", "1M") as disk:
            self.assertEqual((disk.size, disk.read_only), (1 << 20, False))
            disk.write(b"hello", 4096, fua=True)
            disk.write(array.array("I", [1, 2]), 8192)
            disk.flush()
            self.assertEqual(disk.read(5, 4096), bytearray(b"hello"))
            buffer = bytearray(8)
            disk.read_into(memoryview(buffer)[2:], 4096)
            self.assertEqual(buffer, b"\0\0hello\0")
            found = disk.extents()
            self.assertEqual(sum(length for _, length, _, _ in found), 1 << 20)
            self.assertEqual([offset for offset, _, _, zero in found if not zero], [0])
            self.assertEqual(disk.extents(4096, 1 << 19), [(1 << 19, 4096, True, True)])
            disk.zero(5, 4096)
            disk.zero(4096, 8192, no_hole=True)
            disk.discard(1 << 20, 0)
            self.assertEqual(disk.read(5, 4096), bytes(5))
            self.assertEqual(repr(disk), "<blkit.Disk of 1048576 bytes>")
        self.assertEqual(repr(disk), "<blkit.Disk, closed>")
        disk.close()
        with self.assertRaises(ValueError):
            disk.read(1, 0)

    def test_files_and_filters(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "disk.img")
            with open(path, "wb") as file:
                file.write(b"x" * 8192)
            with blkit.open(path, filters=["offset"], offset=4096) as disk:
                self.assertEqual(disk.size, 4096)
                disk.write(b"inside", 0)
            with open(path, "rb") as file:
                self.assertEqual(file.read()[4095:4103], b"xinsidex")
            with blkit.open(path, read_only=True) as disk:
                self.assertTrue(disk.read_only)
                with self.assertRaises(OSError) as caught:
                    disk.write(b"no", 0)
                self.assertEqual(caught.exception.errno, errno.EROFS)

    def test_a_server(self):
        with Server("pattern", "1M") as server, blkit.open(server.uri) as disk:
            self.assertEqual(disk.read(16, 8), bytes.fromhex("00000000000000080000000000000010"))

    def test_errors(self):
        with self.assertRaises(FileNotFoundError):
            blkit.open("/no/such/file")
        with self.assertRaises(OSError) as caught:
            blkit.open("memroy", "1G")
        self.assertIn("memroy", str(caught.exception))
        self.assertTrue(any("memory" in note for note in caught.exception.__notes__))
        with self.assertRaises(TypeError):
            blkit.open(5)
        with blkit.open("memory", "1M") as disk:
            for call in (
                lambda: disk.read(1, 1 << 20),
                lambda: disk.read(1 << 62, 0),
                lambda: disk.write(b"xx", (1 << 20) - 1),
                lambda: disk.zero(2, (1 << 20) - 1),
                lambda: disk.extents(2, (1 << 20) - 1),
                lambda: disk.extents(1, (1 << 64) - 1),
            ):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, errno.EINVAL)
            with self.assertRaises(OverflowError):
                disk.read(-1, 0)
            with self.assertRaises(BufferError):
                disk.read_into(b"constant", 0)

    def test_many_threads(self):
        with blkit.open("memory", "1M") as disk:
            failures = []

            def work(number):
                data = bytes([number]) * 4096
                for _ in range(100):
                    disk.write(data, number * 4096)
                    if disk.read(4096, number * 4096) != data:
                        failures.append(number)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])

    def test_the_interface_can_be_inspected(self):
        self.assertEqual(
            str(inspect.signature(blkit.open)),
            "(source, *words, filters=None, export='', read_only=False, **parameters)",
        )
        for name in dir(blkit.Disk):
            if not name.startswith("_"):
                self.assertTrue(getattr(blkit.Disk, name).__doc__, name)


if __name__ == "__main__":
    unittest.main()
