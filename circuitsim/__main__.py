"""All commands: ``python -m circuitsim``."""

import sys

from circuitsim.commands.main import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m circuitsim"))
