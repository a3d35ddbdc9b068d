"""The floor of durability: what an append and its fdatasync cost on this disk. Usage: python -m benchmarks.fsync"""

import os
import statistics
import tempfile
import time


def append_milliseconds(count: int = 500, size: int = 600) -> float:
    """Median of `count` appends of `size` bytes, each made durable."""
    with tempfile.NamedTemporaryFile(dir=os.environ.get("BENCH_DIR", ".")) as file:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * size)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    print(f"{append_milliseconds():.3f} ms")
