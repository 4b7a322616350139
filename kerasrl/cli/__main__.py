"""`python -m kerasrl.cli`."""

from kerasrl.cli import main

main()
