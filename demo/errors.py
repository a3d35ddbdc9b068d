"""What keeps the demo from going on."""


class DemoError(Exception):
    """Told in the terminal, without a traceback. `lines` say more."""

    def __init__(self, text: str, *lines: str) -> None:
        super().__init__(text)
        self.lines = lines
