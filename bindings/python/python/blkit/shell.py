"""The shell: Python with the module nbd and a handle h. Known as nbdsh, blkit shell and python3 -m nbd.

Options that do something (-c, -u, --base-allocation, --opt-mode) take effect in the order in which they
are given. All code of -c runs in one scope, which is also that of the interactive shell.
"""

import argparse
import code
import os
import sys
import traceback

from blkit import _nbd

HINTS = """\
  h.get_size()                  the size of the disk
  h.pread(512, 0)               its first sector, as a bytearray
  help(nbd)                     everything else
  exit(), or Ctrl-D             the end
"""


class _Step(argparse.Action):
    """Remembers an option with its value, in order."""

    def __call__(self, parser, options, value, option_string=None):
        options.steps = [*options.steps, (self.dest, value)]


class _Words(argparse.Action):
    """Prints the options of one kind, for shell completion."""

    def __call__(self, parser, options, value, option_string=None):
        long = option_string == "--long-options"
        words = [
            word
            for action in parser._actions
            if action.help is not argparse.SUPPRESS and action.dest != "help"
            for word in action.option_strings
            if word.startswith("--") == long
        ]
        print("\n".join(sorted(words)))
        parser.exit()


def _parser(name):
    parser = argparse.ArgumentParser(
        prog=name,
        description="A Python shell for Network Block Devices",
        epilog="Options that do something take effect in the order in which they are given.",
    )
    parser.set_defaults(steps=[])
    parser.add_argument(
        "--base-allocation",
        action=_Step,
        nargs=0,
        help='ask for the metadata context "base:allocation"',
    )
    parser.add_argument(
        "-c",
        "--command",
        action=_Step,
        help="run Python code, or that on standard input (-); may be repeated",
    )
    parser.add_argument("-n", action="store_true", help="do not make the handle 'h'")
    parser.add_argument(
        "--opt-mode",
        action=_Step,
        nargs=0,
        help="stop in the middle of the handshake (see help(nbd.NBD.set_opt_mode))",
    )
    parser.add_argument("-u", "--uri", action=_Step, help="connect to this NBD URI")
    parser.add_argument("--connect", dest="uri", action=_Step, help=argparse.SUPPRESS)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print debugging messages of the handle"
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    for words in ("--short-options", "--long-options"):
        parser.add_argument(words, action=_Words, nargs=0, help=argparse.SUPPRESS)
    return parser


def _banner(name, has_handle):
    handle = "the handle 'h'" if has_handle else "no handle: make one with h = nbd.NBD()"
    return "\n%s: Python with the module 'nbd' and %s.\n\n%s" % (name, handle, HINTS)


def _run(step, value, scope):
    if step == "command":
        text = sys.stdin.read() if value == "-" else value
        exec(text, scope, scope)
        return
    handle = scope["h"]
    if step == "uri":
        handle.connect_uri(value)
    elif step == "base_allocation":
        handle.add_meta_context(_nbd.CONTEXT_BASE_ALLOCATION)
    else:
        handle.set_opt_mode(True)


def _module():
    """The module nbd under its own name, even if there is another one of this name."""
    import nbd

    if nbd.NBD is not _nbd.NBD:
        nbd = sys.modules["nbd"] = _nbd
    return nbd


def _steps(options, scope, name):
    for step, value in options.steps:
        try:
            _run(step, value, scope)
        except _nbd.Error as error:
            if os.environ.get("LIBNBD_DEBUG") == "1":
                traceback.print_exc()
            else:
                print("%s: command line script failed: %s" % (name, error.string), file=sys.stderr)
            sys.exit(1)


def main():
    """Runs the shell with the options of the command line."""
    name = os.environ.pop("BLKIT_SHELL_NAME", "nbdsh")
    options = _parser(name).parse_args()
    if options.version:
        version = _nbd.NBD().get_version()
        print("nbdsh %s\nlibnbd %s" % (version, version))
        return
    kinds = {step for step, _ in options.steps}
    if options.n and kinds - {"command"}:
        print(
            "error: -n option cannot be used with --base-allocation, --opt-mode or --uri",
            file=sys.stderr,
        )
        sys.exit(1)
    if options.verbose:
        os.environ["LIBNBD_DEBUG"] = "1"
    scope = {"__name__": "nbdsh", "__builtins__": __builtins__, "nbd": _module()}
    scope.update(os=os, sys=sys)
    if not options.n:
        scope["h"] = _nbd.NBD()
        scope["h"].set_handle_name("nbdsh")
    _steps(options, scope, name)
    if "command" not in kinds:
        sys.ps1 = "nbd> "
        code.interact(_banner(name, not options.n), local=scope, exitmsg="")


if __name__ == "__main__":
    main()
