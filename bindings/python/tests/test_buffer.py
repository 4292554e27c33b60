"""nbd.Buffer."""

import array
import unittest

import nbd


class Buffers(unittest.TestCase):
    def test_a_new_one(self):
        b = nbd.Buffer(8)
        self.assertEqual((b.size(), len(b), b[0], b[2:4]), (8, 8, 0, bytearray(2)))
        b[0] = 5
        b[1:3] = b"ab"
        self.assertEqual(b.to_bytearray(), b"\5ab\0\0\0\0\0")
        self.assertEqual(bytes(b), b"\5ab\0\0\0\0\0")
        for wrong, error in ((9, IndexError), ("a", TypeError)):
            with self.assertRaises(error):
                b[wrong]
        with self.assertRaises(ValueError):
            b[0] = 256
        for wrong, error in ((-1, ValueError), ("8", TypeError), ([1, 2], TypeError)):
            with self.assertRaises(error):
                nbd.Buffer(wrong)

    def test_shared_and_copied(self):
        o = bytearray(b"hello")
        shared, copied = nbd.Buffer.from_buffer(o), nbd.Buffer.from_bytearray(o)
        shared[0] = ord("J")
        self.assertEqual((o, copied.to_bytearray()), (b"Jello", b"hello"))
        self.assertIs(shared.to_buffer(), o)
        self.assertIsNot(shared.to_bytearray(), o)
        o.append(1)  # nothing is exported while no command is under way
        with self.assertRaises(TypeError):
            nbd.Buffer.from_buffer("text")
        self.assertEqual(nbd.Buffer.from_buffer(array.array("I", [1])).to_bytearray(), b"\1\0\0\0")

    def test_zeroes(self):
        b = nbd.Buffer(1024)
        self.assertTrue(b.is_zero())
        b[1000] = 1
        self.assertFalse(b.is_zero())
        self.assertTrue(b.is_zero(0, 1000))
        self.assertFalse(b.is_zero(0, 1001))
        self.assertTrue(b.is_zero(1001))
        self.assertTrue(b.is_zero(size=0))
        self.assertTrue(b.is_zero(1024))
        for offset, size in ((-1, -1), (0, -2), (1025, -1), (1001, 1 << 40)):
            with self.assertRaises(IndexError):
                b.is_zero(offset, size)


if __name__ == "__main__":
    unittest.main()
