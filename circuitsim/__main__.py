"""All commands: ``python -m circuitsim``."""

import sys

if __name__ == "__main__":
    try:
        from circuitsim.commands.main import main

        sys.exit(main(prog="python -m circuitsim"))
    except KeyboardInterrupt:
        print("python -m circuitsim: interrupted", file=sys.stderr)
        sys.exit(130)
