"""`python -m deviceplugin`: the device plugin of this node."""

import sys

from deviceplugin.plugin import main

if __name__ == "__main__":
    sys.exit(main())
