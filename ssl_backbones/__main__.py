"""`ssl-backbones COMMAND ...`, also as `python -m ssl_backbones` and `accelerate launch -m ssl_backbones`."""

import sys

from ssl_backbones.commands import main

if __name__ == "__main__":
    sys.exit(main())
