"""The end of a run tells what the torture tests did, and the seed of it."""

import torture


def pytest_terminal_summary(terminalreporter):
    if torture.reports:
        terminalreporter.section("torture")
        for line in torture.reports:
            terminalreporter.write_line(line)
