"""Reading, writing and asking, against nbdkit."""

import tempfile
import unittest

import nbd
from peers import Server, command, connected, finish


class Commands(unittest.TestCase):
    def test_the_session_of_the_manual(self):
        h = connected("memory", "1M", contexts=[nbd.CONTEXT_BASE_ALLOCATION])
        self.assertEqual(h.get_size(), 1 << 20)
        h.pwrite(b"hello, world", 100)
        data = h.pread(12, 100)
        self.assertIs(type(data), bytearray)
        self.assertEqual(data, b"hello, world")
        h.flush()
        found = []
        h.block_status(1 << 20, 0, lambda *told: found.append((*told[:3], told[3].value)))
        name, offset, entries, error = found[0]
        self.assertEqual((name, offset, error), ("base:allocation", 0, 0))
        self.assertEqual(sum(entries[0::2]), 1 << 20)
        self.assertEqual(entries[1], 0, "data")
        self.assertEqual(entries[3], nbd.STATE_HOLE | nbd.STATE_ZERO)
        wide = []
        h.block_status_64(1 << 20, 0, lambda *told: wide.extend(told[2]))
        self.assertEqual([number for pair in wide for number in pair], entries)
        h.zero(1 << 20, 0, nbd.CMD_FLAG_FUA)
        h.trim(4096, 0)
        self.assertEqual(h.pread(12, 100), bytes(12))
        h.shutdown()
        self.assertTrue(h.aio_is_closed())

    def test_errors(self):
        h = nbd.NBD()
        with self.assertRaises(nbd.Error) as caught:
            h.pread(512, 0)
        error = caught.exception
        text = (
            "nbd_pread: invalid state: START: the handle must be connected with the server: "
            "Transport endpoint is not connected"
        )
        self.assertEqual((error.string, error.errno, error.errnum), (text, "ENOTCONN", 107))
        self.assertEqual(str(error), text + " (ENOTCONN)")
        self.assertEqual(str(nbd.Error("plain", 0)), "plain")
        self.assertIsNone(nbd.Error("plain", 0).errno)
        h.connect_command(command("memory", "1M"))
        for call in (
            lambda: h.pread(0, 0),
            lambda: h.pread(512, -1),
            lambda: h.pread(512, 1 << 20),
            lambda: h.set_strict_mode(1 << 31),
        ):
            with self.assertRaises(nbd.Error) as caught:
                call()
            self.assertEqual(caught.exception.errno, "EINVAL")

    def test_a_closed_handle(self):
        with nbd.nbd() as h:
            h.connect_command(command("memory", "1M"))
        for call in (h.close, h.get_size, h.aio_is_ready, h.get_private_data, h.get_version):
            with self.assertRaises(nbd.ClosedHandle):
                call()
        self.assertTrue(issubclass(nbd.ClosedHandle, ValueError))
        with self.assertRaises(KeyError), nbd.nbd() as h:
            raise KeyError
        with self.assertRaises(nbd.ClosedHandle):
            h.get_size()

    def test_structured_reads_tell_of_parts(self):
        h = connected("memory", "1M")
        h.pwrite(b"x" * 512, 0)
        parts = []

        def chunk(part, offset, status, error):
            self.assertTrue(part.readonly)
            parts.append((bytes(part), offset, status, error.value))
            kept.append(part)

        kept = []
        data = h.pread_structured(1024, 0, chunk)
        self.assertEqual(data, b"x" * 512 + bytes(512))
        self.assertTrue(all(status != nbd.READ_ERROR for _, _, status, _ in parts))
        joined = bytearray(1024)
        for part, offset, _, _ in parts:
            joined[offset : offset + len(part)] = part
        self.assertEqual(joined, data)
        buffer = nbd.Buffer(1024)
        del h, data
        self.assertEqual(b"".join(bytes(part) for part in kept), bytes(joined), "views stay valid")
        self.assertEqual(buffer.to_bytearray(), bytes(1024))

    def test_parts_of_a_buffer_that_is_a_slice(self):
        h = connected("memory", "1M")
        h.pwrite(bytes(range(256)), 0)
        whole = bytearray(1024)
        parts = []
        h.aio_pread_structured(
            memoryview(whole)[512:768], 0, lambda part, *_: parts.append(bytes(part))
        )
        finish(h)
        self.assertEqual(b"".join(parts), bytes(range(256)))
        self.assertEqual(whole, bytes(512) + bytes(range(256)) + bytes(256))

    def test_handshake_in_steps(self):
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.connect_command(command("memory", "1M"))
        self.assertTrue(h.aio_is_negotiating())
        exports = []
        self.assertEqual(h.opt_list(lambda *told: exports.append(told)), 1)
        self.assertEqual(exports, [("", "")])
        contexts = []
        count = h.opt_list_meta_context_queries(["base:"], contexts.append)
        self.assertEqual((count, contexts), (1, ["base:allocation"]))
        codes = []
        h.aio_opt_info(lambda error: codes.append(error.value) or 1)
        while not codes:
            h.poll(-1)
        self.assertEqual((codes, h.get_size()), ([0], 1 << 20))
        h.opt_go()
        self.assertTrue(h.aio_is_ready())

    def test_tls(self):
        if not nbd.NBD().supports_tls():
            self.skipTest("built without TLS")
        with tempfile.NamedTemporaryFile("w", dir="/tmp") as keys:
            keys.write("somebody:%s\n" % ("1f" * 32))
            keys.flush()
            words = ["--tls=require", "--tls-psk=" + keys.name, "memory", "1M"]
            with Server(*words) as server, nbd.nbd() as h:
                with self.assertRaises(nbd.Error):
                    nbd.NBD().connect_uri(server.uri)
                h.set_tls(nbd.TLS_REQUIRE)
                h.set_tls_psk_file(keys.name)
                h.set_tls_username("somebody")
                h.connect_unix(server.socket)
                self.assertTrue(h.get_tls_negotiated())
                h.pwrite(b"secret", 0)
                self.assertEqual(h.pread(6, 0), b"secret")

    def test_two_handles_copy_with_poll(self):
        block, size = 64 << 10, 4 << 20
        with Server("pattern", "4M") as source, Server("memory", "4M") as target:
            a, b = nbd.NBD(), nbd.NBD()
            a.connect_uri(source.uri)
            b.connect_uri(target.uri)
            for offset in range(0, size, block):
                buffer = nbd.Buffer(block)

                def read(error, buffer=buffer, offset=offset):
                    self.assertEqual(error.value, 0)
                    b.aio_pwrite(buffer, offset, completion=lambda error: 1)
                    return 1

                a.aio_pread(buffer, offset, completion=read)
            while a.aio_in_flight() > 0:
                a.poll(-1)
                b.poll(0)
            finish(b)
            for offset in range(0, size, block):
                self.assertEqual(a.pread(block, offset), b.pread(block, offset))


if __name__ == "__main__":
    unittest.main()
