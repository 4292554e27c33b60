"""Names, parameters and constants are libnbd's."""

import inspect
import pydoc
import unittest
from pathlib import Path

import blkit
import nbd

INTERFACE = Path(__file__).with_name("interface.txt").read_text().splitlines()


class Interface(unittest.TestCase):
    def test_methods_have_the_parameters_of_libnbd(self):
        wanted = [line for line in INTERFACE if line.startswith(("NBD.", "Buffer."))]
        self.assertEqual(sum(line.startswith("NBD.") for line in wanted), 162)
        for line in wanted:
            name, _, parameters = line.partition("(")
            owner, _, method = name.partition(".")
            found = inspect.signature(getattr(getattr(nbd, owner), method))
            _self, *rest = found.parameters.values()
            self.assertEqual(", ".join(map(str, rest)) + ")", parameters, line)

    def test_constants_have_the_values_of_libnbd(self):
        wanted = [line.split(" = ") for line in INTERFACE if " = " in line]
        self.assertEqual(len(wanted), 47)
        for name, value in wanted:
            self.assertEqual(repr(getattr(nbd, name)), value, name)

    def test_there_are_no_other_methods_and_each_is_described(self):
        wanted = {line.split("(")[0][4:] for line in INTERFACE if line.startswith("NBD.")}
        found = {name for name in dir(nbd.NBD) if not name.startswith("_")}
        self.assertEqual(found, wanted)
        for name in found:
            self.assertTrue(getattr(nbd.NBD, name).__doc__, name)

    def test_help_shows_the_calls(self):
        text = pydoc.plain(pydoc.render_doc(nbd))
        self.assertIn("pread(self, /, count, offset, flags=0)", text)
        self.assertIn("Read count bytes from offset", text)
        self.assertIn("is_zero(self, offset=0, size=-1)", text)

    def test_blkit_has_the_module_too(self):
        self.assertIs(blkit.nbd.NBD, nbd.NBD)
        self.assertEqual(blkit.__version__, nbd.__version__)
        self.assertEqual(nbd.NBD().get_version_extra(), "blkit " + blkit.__version__)
        self.assertEqual(nbd.NBD.__module__, "nbd")
        self.assertEqual(nbd.Error.__module__, "nbd")

    def test_a_class_made_from_it_has_its_own_parameters(self):
        class Named(nbd.NBD):
            def __init__(self, name, *, again):
                super().__init__()
                self.set_handle_name(name)
                self.again = again

        h = Named("own", again=3)
        self.assertEqual((h.get_handle_name(), h.again), ("own", 3))
        with self.assertRaises(TypeError):
            nbd.NBD("own")


if __name__ == "__main__":
    unittest.main()
