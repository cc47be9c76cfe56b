#!python
"""The command `moored` where there is no native launcher."""

import sys

from moored.cli import main

sys.exit(main())
