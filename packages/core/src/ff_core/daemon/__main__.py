"""``python -m ff_core.daemon``."""

import gc
import sys

gc.disable()  # a tenth of the time until we listen is collecting while importing; ``settle`` turns it on again

from ff_core.contract import building  # noqa: E402

building.at_first_use = True

from ff_core.daemon.main import main  # noqa: E402

sys.exit(main())
