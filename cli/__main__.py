"""`python -m spacelite_cli`, which is how torchrun starts the command line."""

from . import main

main()
