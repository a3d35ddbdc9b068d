"""First on PYTHONPATH, it makes a sidecar that acknowledges a write when it is handed over, before it is committed."""

import asyncio

from sidecar.database import Database

write = Database.write


def hasty_write(self, sql, parameters, done, *rest, **options):
    write(self, sql, parameters, lambda error: None, *rest, **options)
    asyncio.get_running_loop().call_soon(done, None)


Database.write = hasty_write
