"""``python -m ff_desktop.serving``: what the other commands start in the background."""

import sys
from functools import partial

from ff_desktop.serving.process import main
from ff_desktop.wiring import Desktop, as_user

if __name__ == "__main__":
    sys.exit(main(lambda settings: Desktop(settings).background(), lambda settings: partial(as_user, settings)))
