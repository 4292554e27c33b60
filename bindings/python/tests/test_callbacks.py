"""Results and exceptions of callbacks."""

import contextlib
import errno
import io
import unittest

import nbd
from peers import connected, finish


def oops(*_):
    raise RuntimeError("oops")


def leave(*_):
    raise SystemExit(3)


def no_space(*arguments):
    arguments[-1].value = 28
    return -1


class Callbacks(unittest.TestCase):
    def setUp(self):
        self.h = connected("memory", "1M", contexts=["base:allocation"])

    def failed(self, callback):
        """Error names of commands whose callback this is."""
        h = self.h
        names = []
        for call in (
            lambda: h.block_status(512, 0, callback),
            lambda: h.block_status_64(512, 0, callback),
            lambda: h.pread_structured(512, 0, callback),
        ):
            try:
                call()
                names.append(None)
            except nbd.Error as error:
                names.append(error.errno)
        return names

    def test_an_exception_is_printed_and_fails_the_command(self):
        for callback, word in ((oops, "RuntimeError: oops"), (leave, "SystemExit: 3")):
            with contextlib.redirect_stderr(io.StringIO()) as text:
                self.assertEqual(self.failed(callback), ["EPROTO"] * 3)
            self.assertEqual(text.getvalue().count(word), 3)
            self.assertIn("Traceback", text.getvalue())

    def test_an_error_number_of_the_callbacks(self):
        self.assertEqual(self.failed(no_space), ["ENOSPC"] * 3)
        self.assertEqual(self.failed(lambda *_: -1), ["EPROTO"] * 3)

    def test_any_other_result_is_success(self):
        for result in (None, 0, 1, True, "text", 1 << 40, 2.5):
            self.assertEqual(self.failed(lambda *_: result), [None] * 3)

    def test_completions(self):
        h = self.h

        def ended(callback):
            cookie = h.aio_flush(callback)
            finish(h)
            return h.aio_command_completed(cookie)

        self.assertFalse(ended(lambda error: 1), "retired at once")
        self.assertTrue(ended(lambda error: 0))
        self.assertTrue(ended(None))
        with self.assertRaises(nbd.Error) as caught:
            ended(no_space)
        self.assertEqual(caught.exception.errno, "ENOSPC")
        with contextlib.redirect_stderr(io.StringIO()) as text:
            self.assertTrue(ended(oops))
        self.assertIn("oops", text.getvalue())

    def test_calls_inside_of_callbacks(self):
        h, other = self.h, connected("memory", "1M")
        found = []

        def inside(*_):
            found.append(other.get_size())
            found.append(h.aio_is_dead())
            try:
                h.flush()
            except nbd.Error as error:
                found.append(error.errnum)

        h.pread_structured(512, 0, inside)
        self.assertEqual(found, [1 << 20, False, errno.EDEADLK])

    def test_debugging_messages(self):
        h, lines = self.h, []
        h.set_debug_callback(lambda context, message: lines.append((context, message)))
        h.set_debug(True)
        h.flush()
        h.set_debug(False)
        h.flush()
        self.assertIn("nbd_flush", [context for context, _ in lines])
        self.assertTrue(any(message.startswith("enter:") for _, message in lines))


if __name__ == "__main__":
    unittest.main()
