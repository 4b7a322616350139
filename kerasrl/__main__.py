"""`python -m kerasrl`."""

from kerasrl.cli import main

main(prog_name="python -m kerasrl")
