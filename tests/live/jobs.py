"""How a sidecar's target can be labelled: with or without a cluster, by pod, by service, or by nothing but its address."""

SHAPES = {
    "pod": {"namespace": "robots", "pod": "drone-7", "container": "fsm-sidecar"},
    "pod in a cluster": {"cluster": "eu-1", "namespace": "robots", "pod": "drone-7", "container": "fsm-sidecar"},
    "service": {"namespace": "robots", "pod": "drone-7", "service": "fsm-sidecar", "endpoint": "ops"},
    "static": {},
}
"""The labels that each way of scraping adds to `job` and `instance`."""


def job(shape, address):
    """A scrape job of this shape, and its `instance`. The jobs scrape the same sidecar, and are told apart by that label."""
    instance = f"{shape.replace(' ', '-')}:8471"
    return {
        "job_name": f"fsm-sidecar/{shape.replace(' ', '-')}",
        "static_configs": [{"targets": [address], "labels": SHAPES[shape] | {"instance": instance}}],
    }, instance
