"""Programs written for libnbd's module print the same with ours.

libnbd's is looked for with /usr/bin/python3, and with what BLKIT_LIBNBD_PYTHON names: command lines of interpreters,
separated by semicolons. A program runs where it says "# since: VERSION" of an installed one.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from peers import Server

PROGRAMS = sorted(Path(__file__).with_name("programs").glob("*.py"))


def version(text):
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def real_modules():
    """Command lines of interpreters that have libnbd's module, with its version."""
    lines = os.environ.get("BLKIT_LIBNBD_PYTHON", "").split(";") + ["/usr/bin/python3"]
    probe = "import nbd; print(nbd.NBD().get_version(), hasattr(nbd, 'libnbdmod'))"
    found = []
    for line in filter(None, lines):
        words = shlex.split(line)
        with contextlib.suppress(OSError):
            told = run([*words, "-c", probe], None)
            if told.endswith("True\nexit status 0\n"):
                found.append((words, version(told)))
    return found


def run(words, modules):
    """What a program prints, and how it ends."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if modules:
        environment["PYTHONPATH"] = modules
    done = subprocess.run(
        words, env=environment, cwd="/tmp", text=True, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return "%sexit status %s\n" % (done.stdout, done.returncode)


class Programs(unittest.TestCase):
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.real = real_modules()
        cls.folder = tempfile.TemporaryDirectory(dir="/tmp")
        cls.addClassCleanup(cls.folder.cleanup)

    def output(self, python, program, servers, modules=None):
        with contextlib.ExitStack() as stack:
            uris = [stack.enter_context(Server(*words)).uri for words in servers]
            told = run([*python, program, *uris], modules)
            for number, uri in enumerate(uris):
                told = told.replace(uri, "URI%d" % number)
            return told

    def compare(self, path):
        text = path.read_text()
        since = version(re.search("^# since: (.*)$", text, re.MULTILINE)[1])
        servers = [shlex.split(line) for line in re.findall("^# server: (.*)$", text, re.MULTILINE)]
        program = shutil.copy(path, self.folder.name)
        ours = self.output([sys.executable], program, servers, os.environ["PYTHONPATH"])
        self.assertTrue(ours.endswith("exit status 0\n"), ours)
        real = [words for words, known in self.real if known >= since]
        if not real:
            self.skipTest("libnbd's Python module of %s or newer is not installed" % (since,))
        for words in real:
            self.assertEqual(ours, self.output(words, program, servers), words)


def _test(path):
    return lambda self: self.compare(path)


for _path in PROGRAMS:
    setattr(Programs, "test_" + _path.stem, _test(_path))


if __name__ == "__main__":
    unittest.main()
