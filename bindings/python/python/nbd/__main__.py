"""python3 -m nbd: the shell."""

from blkit.shell import main

main()
