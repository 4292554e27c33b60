"""nbdsh: options, messages and exit statuses."""

import os
import subprocess
import sys
import tempfile
import unittest

from peers import Server, command

USAGE = "usage: nbdsh [-h] [--base-allocation] [-c COMMAND] [-n] [--opt-mode] [-u URI]"
START = (
    "nbd_pread: invalid state: START: the handle must be connected with the server: "
    "Transport endpoint is not connected"
)


def shell(*words, stdin="", module="blkit.shell", **environment):
    """Exit status, output and messages."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        input=stdin,
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


class Shell(unittest.TestCase):
    def test_code_of_the_command_line_shares_a_scope(self):
        self.assertEqual(shell("-c", "a = 1", "-c", "print(a, h.get_handle_name())"), (0, "1 nbdsh\n", ""))
        self.assertEqual(shell("-c", "a = 1", "-c", "-", "-c", "print(b)", stdin="b = a + 1"), (0, "2\n", ""))
        self.assertEqual(shell("-c", "import sys; sys.exit(5)")[0], 5)
        self.assertEqual(shell("-c", "print(__name__, os.sep, nbd.TLS_ALLOW)")[1], "nbdsh / 1\n")

    def test_the_line_of_the_manual(self):
        with Server("memory", "1M") as server:
            for option in ("-u", "--uri", "--connect", "--ur"):
                told = shell(option, server.uri, "-c", 'print("%r" % h.pread(4, 0))')
                self.assertEqual(told, (0, "bytearray(b'\\x00\\x00\\x00\\x00')\n", ""))

    def test_the_session_of_the_manual(self):
        lines = "h.connect_command(%r)\nh.get_size()\nh.pwrite(b'hello', 0)\nh.pread(5, 0)\nh.flush()\n"
        status, out, err = shell(stdin=lines % command("memory", "1M"))
        self.assertEqual(status, 0)
        self.assertEqual(out.replace("nbd> ", ""), "1048576\nbytearray(b'hello')\n")
        self.assertIn("the handle 'h'", err)
        status, out, err = shell("-n", stdin="'h' in globals()\n")
        self.assertEqual((status, out), (0, "nbd> False\nnbd> "))
        self.assertIn("h = nbd.NBD()", err)

    def test_options_take_effect_in_order(self):
        with Server("memory", "1M") as server:
            contexts = "print(h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION))"
            for option in ("--base-allocation", "--b"):
                told = shell(option, "-u", server.uri, "-c", contexts)
                self.assertEqual(told, (0, "True\n", ""))
            status, out, err = shell("-u", server.uri, "--base-allocation")
            self.assertEqual((status, out), (1, ""))
            self.assertTrue(err.startswith("nbdsh: command line script failed: nbd_add_meta_context: "))
            told = shell("--opt-mode", "-u", server.uri, "-c", "print(h.aio_is_negotiating())")
            self.assertEqual(told, (0, "True\n", ""))
            status, out, _ = shell("-c", "print(1)", "-u", "nbd+unix:///?socket=/no/such", "-c", "print(2)")
            self.assertEqual((status, out), (1, "1\n"))

    def test_errors(self):
        failed = "nbdsh: command line script failed: "
        self.assertEqual(shell("-c", "h.pread(1, 0)"), (1, "", failed + START + "\n"))
        status, _, err = shell("-u", "nosuch")
        self.assertEqual(status, 1)
        self.assertTrue(err.startswith(failed + "nbd_connect_uri: NBD URI does not have a scheme"))
        status, _, err = shell("-c", "1/0")
        self.assertEqual((status, err.splitlines()[-1]), (1, "ZeroDivisionError: division by zero"))
        refused = "error: -n option cannot be used with --base-allocation, --opt-mode or --uri\n"
        for option in (["-u", "nbd://x"], ["--opt-mode"], ["--base-allocation"]):
            self.assertEqual(shell("-n", *option), (1, "", refused))
        for words in (["--nosuch"], ["-x"], ["extra"], ["-c"], ["--c", "1"]):
            status, out, err = shell(*words)
            self.assertEqual((status, out, err.splitlines()[0]), (2, "", USAGE))
            self.assertIn("nbdsh: error: ", err)

    def test_debugging(self):
        told = shell("-v", "-c", "print(h.get_debug(), os.environ['LIBNBD_DEBUG'])")
        self.assertEqual(told[:2], (0, "True 1\n"))
        status, _, err = shell("--verbose", "-c", "h.pread(1, 0)")
        self.assertEqual((status, err.count("Traceback")), (1, 1))
        self.assertIn("libnbd: debug: nbdsh: nbd_pread: enter: ", err)
        self.assertIn("nbd.Error: " + START + " (ENOTCONN)", err)

    def test_version_help_and_completion(self):
        self.assertEqual(shell("-V"), (0, "nbdsh 1.24.4\nlibnbd 1.24.4\n", ""))
        status, out, err = shell("--help")
        self.assertEqual((status, err, out.splitlines()[0]), (0, "", USAGE))
        self.assertEqual(shell("--short-options"), (0, "-V\n-c\n-n\n-u\n-v\n", ""))
        long = "--base-allocation --command --opt-mode --uri --verbose --version"
        self.assertEqual(shell("--long-options"), (0, "\n".join(long.split()) + "\n", ""))
        as_blkit = shell("--help", BLKIT_SHELL_NAME="blkit shell")
        self.assertTrue(as_blkit[1].startswith("usage: blkit shell "))

    def test_the_program_blkit_becomes_the_shell(self):
        program = os.environ.get("BLKIT_PROGRAM")
        if not program:
            self.skipTest("the program blkit is not built")
        with tempfile.TemporaryDirectory() as folder, Server("memory", "1M") as server:
            link = os.path.join(folder, "nbdsh")
            os.symlink(program, link)
            for words in ([program, "shell"], [program, "nbdsh"], [link]):
                words = [*words, "-u", server.uri, "-c", "print(h.get_size())"]
                environment = {**os.environ, "BLKIT_PYTHON": sys.executable}
                done = subprocess.run(words, capture_output=True, text=True, env=environment)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "1048576\n", ""))

    def test_the_module_nbd_is_the_shell_too(self):
        self.assertEqual(shell("-c", "print(1)", module="nbd"), (0, "1\n", ""))
        told = shell("-c", "import nbd as again; print(again.NBD is type(h))", module="nbd")
        self.assertEqual(told[1], "True\n")


if __name__ == "__main__":
    unittest.main()
