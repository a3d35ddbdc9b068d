"""Where to look, and how to join in."""

from demo.api import Stored
from demo.terminal import DIM, Terminal

_PLACES = (
    ("api", "/", "all of it in a browser, live"),
    ("api", "/v1/state", "the state, with its ETag"),
    ("api", "/v1/history", "every revision"),
    ("api", "/v1/conflicts", "who lost against whom"),
    ("api", "/v1/machine?format=mermaid", "the machine as a diagram, for mermaid.live"),
    ("api", "/v1/subscribers", "who listens, how far each one is"),
    ("ops", "/metrics", "what Prometheus reads"),
    ("ops", "/healthz", "what the probes ask, all at once"),
)


def show(terminal: Terminal, api_url: str, ops_url: str, state: Stored, *, stays: bool) -> None:
    """The addresses to look at, and commands to copy."""
    terminal.heading("All of it keeps running. Look around:" if stays else "Without --once all of it keeps running:")
    bases = {"api": api_url, "ops": ops_url}
    places = [(bases[base] + path, text) for base, path, text in _PLACES]
    width = max(len(url) for url, _ in places)
    for url, text in places:
        terminal.write(f"  {url:<{width}}  {terminal.paint(text, DIM)}")
    terminal.heading("Join in; what you write arrives below:" if stays else "And to join in:")
    for purpose, command in _commands(api_url, state):
        terminal.write(terminal.paint(f"  # {purpose}", DIM))
        terminal.write(f"  {command}")
    if stays:
        terminal.heading("Ctrl-C ends it.")


def _commands(api_url: str, state: Stored) -> list[tuple[str, str]]:
    """Each with its purpose. The stale ETag is of the flight's last seconds."""
    stale = f'"{state.epoch}-{state.version - 9}"'
    json = "-H 'Content-Type: application/json' -d"
    again = """'{"to": "AUTO_TAKEOFF", "source_module": "you"}'"""
    late = """'{"state": "ORBIT", "source_module": "you"}'"""
    return [
        ("read the state", f"curl -i {api_url}/v1/state"),
        ("take off again", f"curl -i {api_url}/v1/transitions {json} {again}"),
        ("lose a race, with an old ETag", f"curl -i -X PUT {api_url}/v1/state -H 'If-Match: {stale}' {json} {late}"),
    ]
