"""`python -m app.data COMMAND …`: what `resnetctl dataset` does, where there is no resnetctl."""

import sys

from app.data.commands import main

if __name__ == "__main__":
    sys.exit(main())
