"""`python -m controller`: the operator."""

import sys

from controller.operator import main

if __name__ == "__main__":
    sys.exit(main())
