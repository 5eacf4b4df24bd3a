"""``python -m stylegan_inv train method=restyle`` is the same as ``stylegan-inv train method=restyle``."""

import sys

from stylegan_inv.cli import main

if __name__ == "__main__":
    sys.exit(main())
