"""In place of the real uvloop: `make test LOOP=asyncio` puts this folder in front, for every process that it starts."""

raise ImportError("this run of the tests is on asyncio's own loop")
