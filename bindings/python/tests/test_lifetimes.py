"""What is held, how long, and what other threads may do meanwhile."""

import gc
import sys
import threading
import time
import unittest
import weakref

import nbd
from peers import connected, finish


class Thing:
    """Something to be referred to weakly."""


def resident():
    """Memory of this process, in KiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4


class Lifetimes(unittest.TestCase):
    def test_a_buffer_is_held_until_the_completion(self):
        h = connected("--filter=delay", "memory", "1M", "rdelay=200ms")
        buffer = bytearray(512)
        before = sys.getrefcount(buffer)
        h.aio_pread(buffer, 0)
        self.assertGreater(sys.getrefcount(buffer), before)
        with self.assertRaises(BufferError):
            buffer.append(1)
        finish(h)
        buffer.append(1)
        self.assertEqual(sys.getrefcount(buffer), before)

    def test_a_buffer_nobody_else_has(self):
        h = connected("--filter=delay", "memory", "1M", "wdelay=50ms")
        for number in range(8):
            h.aio_pwrite(bytearray([number]) * 4096, number * 4096)
        gc.collect()
        finish(h)
        for number in range(8):
            self.assertEqual(h.pread(4096, number * 4096), bytes([number]) * 4096)

    def test_callbacks_are_let_go(self):
        h = connected("memory", "1M", contexts=["base:allocation"])

        def fresh(result):
            thing = Thing()

            def callback(*_):
                self.assertIsNotNone(thing)
                return result

            refs.append(weakref.ref(thing))
            return callback

        refs = []
        h.pread_structured(512, 0, fresh(0))
        h.block_status(512, 0, fresh(0))
        h.block_status_64(512, 0, fresh(0))
        h.aio_flush(fresh(1))
        h.aio_pread_structured(bytearray(512), 0, fresh(0), fresh(1))
        with self.assertRaises(nbd.Error):
            h.aio_pread(bytearray(512), 1 << 30, fresh(1))
        with self.assertRaises(nbd.Error):
            h.block_status(512, 1 << 30, fresh(0))
        h.set_debug_callback(fresh(0))
        h.clear_debug_callback()
        finish(h)
        self.assertEqual([ref() for ref in refs], [None] * len(refs))

    def test_closing_lets_go_of_commands_under_way(self):
        h = connected("--filter=delay", "memory", "1M", "rdelay=10")
        thing = Thing()
        ref = weakref.ref(thing)
        buffer = bytearray(512)
        before = sys.getrefcount(buffer)
        codes = []
        h.aio_pread(buffer, 0, lambda error, thing=thing: codes.append(error.value) or 1)
        del thing
        self.assertIsNotNone(ref())
        began = time.monotonic()
        h.close()
        self.assertLess(time.monotonic() - began, 5)
        self.assertIsNone(ref())
        self.assertEqual(codes, [107])
        self.assertEqual(sys.getrefcount(buffer), before)

    def test_a_handle_that_is_forgotten_is_closed(self):
        h = connected("--filter=delay", "memory", "1M", "rdelay=10")
        thing = Thing()
        ref = weakref.ref(thing)
        h.aio_pread(bytearray(512), 0, lambda error, thing=thing: 1)
        del thing, h
        self.assertIsNone(ref())

    def test_a_handle_in_a_circle_is_found(self):
        h = nbd.NBD()
        ref = weakref.ref(h)
        h.myself = h
        del h
        gc.collect()
        self.assertIsNone(ref())

    def test_nothing_leaks(self):
        h = connected("memory", "1M", contexts=["base:allocation"])
        buffer = nbd.Buffer(4096)

        def some(count):
            for _ in range(count):
                h.aio_pread(buffer, 0, completion=lambda error: 1)
                h.aio_pwrite(b"x" * 4096, 4096, completion=lambda error: 1)
                h.aio_pread_structured(bytearray(4096), 0, lambda *_: 0, lambda error: 1)
                h.block_status(4096, 0, lambda *_: 0)
                h.pread(4096, 0)
                with self.assertRaises(nbd.Error):
                    h.pread(4096, 1 << 30)
                finish(h)

        some(300)
        gc.collect()
        references, objects, memory = (
            sys.getrefcount(buffer._o),
            len(gc.get_objects()),
            resident(),
        )
        some(3000)
        gc.collect()
        self.assertEqual(sys.getrefcount(buffer._o), references)
        self.assertLess(abs(len(gc.get_objects()) - objects), 50)
        self.assertLess(resident() - memory, 4096, "KiB")

    def test_handles_do_not_leak(self):
        for _ in range(50):
            nbd.NBD().set_debug_callback(lambda *_: 0)
        before = resident()
        for _ in range(2000):
            nbd.NBD().set_debug_callback(lambda *_: 0)
        self.assertLess(resident() - before, 2048, "KiB")

    def test_other_threads_run_while_a_call_waits(self):
        h = connected("--filter=delay", "memory", "1M", "rdelay=500ms")
        done = []
        reader = threading.Thread(target=lambda: done.append(h.pread(512, 0)))
        reader.start()
        ticks = 0
        while not done:
            time.sleep(0.01)
            ticks += 1
        reader.join()
        self.assertGreater(ticks, 5)

    def test_many_threads_with_callbacks_on_one_handle(self):
        h = connected("memory", "1M", contexts=["base:allocation"])
        failures = []

        def work(number):
            try:
                data = bytes([number]) * 4096
                for _ in range(100):
                    h.pwrite(data, number * 4096)
                    told = []
                    h.pread_structured(4096, number * 4096, lambda part, *_: told.append(bytes(part)))
                    self.assertEqual(b"".join(told), data)
                    h.block_status(4096, 0, lambda *_: 0)
                    self.assertTrue(h.get_strict_mode())
                    self.assertTrue(h.connection_state())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_closing_while_another_thread_waits(self):
        h = connected("--filter=delay", "memory", "1M", "rdelay=300ms")
        results = []
        reader = threading.Thread(target=lambda: results.append(h.pread(512, 0)))
        reader.start()
        time.sleep(0.1)
        h.close()
        reader.join()
        self.assertEqual(results, [bytearray(512)], "the call under way ends as it would have")
        with self.assertRaises(nbd.ClosedHandle):
            h.get_size()


if __name__ == "__main__":
    unittest.main()
