"""Servers for the tests."""

import os
import shutil
import subprocess
import tempfile
import time
import unittest

import nbd


def nbdkit():
    """The path of nbdkit; without it the test is skipped."""
    path = shutil.which("nbdkit")
    if path is None:
        raise unittest.SkipTest("nbdkit is not installed")
    return path


def command(*words):
    """A server on stdin and stdout, for connect_command."""
    return [nbdkit(), "-s", "--exit-with-parent", *words]


def connected(*words, contexts=()):
    """A handle connected with nbdkit and these words."""
    h = nbd.NBD()
    for context in contexts:
        h.add_meta_context(context)
    h.connect_command(command(*words))
    return h


def finish(h):
    """Waits for all commands of a handle."""
    while h.aio_in_flight() > 0:
        h.poll(-1)


def listens(path):
    """Whether somebody listens on this Unix socket: its file is there a moment earlier."""
    with open("/proc/net/unix") as sockets:
        words = [line.split() for line in sockets]
    return any(len(w) > 7 and w[3] == "00010000" and w[7] == path for w in words)


class Server:
    """nbdkit for a with statement, on a Unix socket unless told otherwise."""

    def __init__(self, *words, socket=True):
        self.words = words
        self.is_on_socket = socket

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(dir="/tmp")
        self.socket = os.path.join(self.folder.name, "sock")
        self.uri = "nbd+unix:///?socket=" + self.socket
        head = [nbdkit(), "-f", "--exit-with-parent"]
        if self.is_on_socket:
            head += ["-U", self.socket]
        self.process = subprocess.Popen([*head, *self.words])
        while self.is_on_socket and not listens(self.socket):
            if self.process.poll() is not None:
                raise RuntimeError("nbdkit ended")
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()
