"""`python -m moored` is the `moored` command."""

import sys

from moored.cli import main

sys.exit(main())
