"""What is taken as an argument, and how it is refused."""

import array
import os
import pathlib
import socket
import sys
import unittest

import nbd
from peers import Server, connected, finish


class Arguments(unittest.TestCase):
    def test_wrong_types(self):
        h = nbd.NBD()
        wrong = [
            lambda: h.set_export_name(None),
            lambda: h.set_export_name(b"bytes"),
            lambda: h.connect_command("nbdkit -s"),
            lambda: h.connect_command(("nbdkit",)),
            lambda: h.connect_command([b"nbdkit"]),
            lambda: h.connect_unix(None),
            lambda: h.connect_tcp("localhost", 10809),
            lambda: h.pread("1", 0),
            lambda: h.pread(1.5, 0),
            lambda: h.pwrite("text", 0),
            lambda: h.aio_pread("text", 0),
            lambda: h.aio_flush(completion=3),
            lambda: h.block_status(1, 0, None),
            lambda: h.opt_list(None),
            lambda: h.pread(1, 0, nosuch=1),
            lambda: h.pread(1),
        ]
        for call in wrong:
            with self.assertRaises(TypeError):
                call()
        self.assertTrue(h.aio_is_created())

    def test_wrong_values(self):
        h = nbd.NBD()
        for text in ("a\0b", "\0"):
            with self.assertRaises(ValueError):
                h.set_export_name(text)
            with self.assertRaises(ValueError):
                h.connect_unix(text)
            with self.assertRaises(ValueError):
                h.connect_command([text])
        for number in (1 << 64, -(1 << 63) - 1):
            with self.assertRaises(OverflowError):
                h.trim(1, number)
        for number in (1 << 32, -(1 << 31) - 1):
            with self.assertRaises(OverflowError):
                h.flush(number)
        with self.assertRaises(ValueError):
            h.pread(-1, 0)

    def test_names_of_files_are_of_any_kind(self):
        for path in ("/no/such", b"/no/such", pathlib.Path("/no/such")):
            with self.assertRaises(nbd.Error) as caught:
                nbd.NBD().connect_unix(path)
            self.assertEqual(caught.exception.errno, "ENOENT")
        with Server("memory", "1M") as server:
            for path in (server.socket, os.fsencode(server.socket), pathlib.Path(server.socket)):
                h = nbd.NBD()
                h.connect_unix(path)
                self.assertEqual(h.get_size(), 1 << 20)
            h = nbd.NBD()
            h.aio_connect(server.socket)
            while h.aio_is_connecting():
                h.poll(-1)
            self.assertEqual(h.get_size(), 1 << 20)

    def test_a_socket_is_taken_or_left(self):
        h = nbd.NBD()
        for number in (-1, 9999):
            with self.assertRaises(nbd.Error) as caught:
                h.connect_socket(number)
            self.assertEqual(caught.exception.errno, "EBADF")
        with Server("memory", "1M") as server:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(server.socket)
            h.connect_socket(peer.detach())
            self.assertEqual(h.get_size(), 1 << 20)
            left = socket.socket(socket.AF_UNIX)
            left.connect(server.socket)
            with self.assertRaises(nbd.Error):
                h.connect_socket(left.fileno())
            self.assertTrue(left.recv(8), "it is still open and ours")
            left.close()

    def test_poll2_returns_for_the_other_descriptor(self):
        h = connected("memory", "1M")
        reader, writer = os.pipe()
        self.assertEqual(h.poll2(reader, 0), 0)
        os.write(writer, b"x")
        h.poll2(reader, -1)
        os.close(reader)
        os.close(writer)
        self.assertEqual(h.poll2(-1, 0), 0)
        with self.assertRaises(nbd.Error) as caught:
            h.poll2(reader, -1)
        self.assertEqual(caught.exception.errno, "EBADF")

    def test_buffers_of_every_kind(self):
        h = connected("memory", "1M")
        data = bytes(range(256)) * 2
        kinds = [
            data,
            bytearray(data),
            memoryview(data),
            array.array("I", data),
            memoryview(array.array("Q", data)),
            nbd.Buffer.from_bytearray(data),
        ]
        for number, kind in enumerate(kinds):
            h.pwrite(kind, number * 512)
            self.assertEqual(h.pread(512, number * 512), data)
        targets = [bytearray(512), array.array("I", bytes(512)), memoryview(bytearray(512))]
        for target in targets:
            h.aio_pread(target, 512)
            finish(h)
            self.assertEqual(bytes(target), data)
        for target in (data, memoryview(data), nbd.Buffer.from_buffer(data)):
            with self.assertRaises(BufferError):
                h.aio_pread(target, 0)
        with self.assertRaises(BufferError):
            h.aio_pread(memoryview(bytearray(1024))[::2], 0)

    def test_a_length_that_is_refused_takes_no_memory(self):
        if sys.flags.dev_mode or "PYTHONMALLOC" in os.environ:
            self.skipTest("the interpreter fills new memory")
        h = connected("memory", "1M")
        for count, name in ((1 << 62, "ERANGE"), (1 << 36, "ERANGE"), (1 << 30, "EINVAL")):
            with self.assertRaises(nbd.Error) as caught:
                h.pread(count, 0)
            self.assertEqual(caught.exception.errno, name)
        with open("/proc/self/status") as status:
            peak = [line for line in status if line.startswith("VmHWM")][0]
        self.assertLess(int(peak.split()[1]), 512 << 10, "KiB")


if __name__ == "__main__":
    unittest.main()
