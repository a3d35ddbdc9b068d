"""`python -m demo`."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends silently; later the event loop listens

from demo.show import main  # noqa: E402

sys.exit(main())
