"""``python -m ff_core.daemon``.

The order is what makes a VM start fast. First the socket: whoever waits for us connects at once, and is answered the moment
we can. Then the imports, and while these run no collector (a tenth of their time), no TLS (asyncio takes four milliseconds
to import it, and we speak none), and no models are built before they are used.
"""

import gc
import os
import sys
from types import ModuleType

from ff_core.contract import building
from ff_core.daemon.listening import open_door

building.at_first_use = True
gc.disable()  # ``main`` turns it on again
listener = open_door(os.environ)

sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio does without where there is none
import asyncio  # noqa: E402, F401

del sys.modules["ssl"]
# Pydantic would read the metadata of all packages for plugins, of which there are none.
no_plugins = ModuleType("pydantic.plugin._loader")
no_plugins.get_plugins = tuple  # type: ignore[attr-defined]
sys.modules[no_plugins.__name__] = no_plugins

from ff_core.daemon.main import main  # noqa: E402

sys.exit(main(listener))
