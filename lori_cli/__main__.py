"""`python -m lori_cli`."""

import sys

from lori_cli import main

sys.exit(main())
