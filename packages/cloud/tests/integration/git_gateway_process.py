"""The git door in a process of its own, so that its memory can be looked at: ``python git_gateway_process.py ORIGIN TOKEN_HASH``.

Prints its address; the credential comes on standard input. Ends with its standard input.
"""

import asyncio
import sys

from git_gateway_parts import OneVm, gateway_app

from ff_cloud.gateway.git_relay import upstream_client
from ff_core.testing.serve import serving


async def main(origin: str, vm_token: str) -> None:
    credential = sys.stdin.readline().strip()
    async with upstream_client() as http, serving(gateway_app(OneVm(vm_token, credential), http, github=origin)) as address:
        sys.stdout.write(address + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
