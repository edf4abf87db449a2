"""`python -m cort33x_lib`: see the room `command`."""

import sys

from cort33x_lib.command.parser import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
