"""`python -m sidecar` is `fsm-sidecar`."""

import sys

from sidecar.cli import main

sys.exit(main())
