"""`python -m renshu` is the program `renshu`."""

import sys

from renshu.cli.main import main

sys.exit(main())
