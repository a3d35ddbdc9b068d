"""The image, built once for all that is asked of it, and what was measured, told at the end."""

import pytest
from engine import BASE, Engine, missing

MEASURED = []


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """An engine that has built the image."""
    if absent := missing():
        pytest.exit(f"make image-test needs {', '.join(absent)}; on Debian: apt-get install {' '.join(absent)}", returncode=2)
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        engine.get_base()
        engine.build()
        yield engine
    finally:
        engine.remove()


@pytest.fixture
def measured():
    """Takes lines for the end of the run."""
    return MEASURED.append


def pytest_terminal_summary(terminalreporter):
    """Size, time, memory."""
    if MEASURED:
        terminalreporter.section(f"the image, on {BASE}")
        for line in MEASURED:
            terminalreporter.line(line)
