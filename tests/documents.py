"""Documents as a test reads them: their blocks of code, where their links lead, and a shell in which their commands run."""

import re
import subprocess

_ADDRESSES = ("127.0.0.1:8470", "127.0.0.1:8471", "http://127.0.0.1:9000/hook")
"""The API, the ops listener and the receiver, as all documents call them."""

_STATUS_OF_EACH_CURL = 'curl() { command curl -w "%{stderr}status %{http_code}\\n" "$@"; }\n'


def blocks(text, language):
    """The code blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def links(text):
    """Those within the project: (path, heading), both perhaps empty."""
    found = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text)
    return [(path, heading) for path, heading in found if "://" not in path]


def headings(text):
    """The names by which links find the headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


class Shell:
    """Runs blocks as they stand, but for the addresses: those of a sidecar and of a receiver of the test."""

    def __init__(self, api, ops, hook):
        self._places = dict(zip(_ADDRESSES, (api, ops, hook), strict=True))
        self.statuses = []
        """What HTTP has answered so far: of each curl, in order."""

    def __call__(self, block):
        """The output. Each command has to end with 0."""
        for address, place in self._places.items():
            block = block.replace(address, place)
        command = ["bash", "-euo", "pipefail", "-c", _STATUS_OF_EACH_CURL + block]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert 0 == ran.returncode, f"{block}\nended with {ran.returncode}: {ran.stderr}"
        self.statuses += map(int, re.findall(r"^status (\d+)$", ran.stderr, re.MULTILINE))
        return ran.stdout
