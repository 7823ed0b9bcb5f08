"""`python -m editr1_plugins` is the command `editr1`."""

import sys

from .cli import main

sys.exit(main())
