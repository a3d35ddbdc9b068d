"""Single values of a scrape, for tests."""

from prometheus_client.parser import text_string_to_metric_families as parse


def scraped(text, name, **labels):
    """The value of one sample."""
    (value,) = (
        sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
    return value


def of(sidecar, name, **labels):
    """The value of one sample of this sidecar, now."""
    return scraped(sidecar.ops.get("/metrics").body.decode(), name, **labels)
