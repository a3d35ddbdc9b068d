"""The dashboards, and the tables of docs/metrics.md, made from the catalogue: `python -m grafana.build`."""

import importlib
import warnings

with warnings.catch_warnings():
    # The SDK would have us use the newer schemas of dashboards, which only the newest Grafana reads.
    warnings.simplefilter("ignore", DeprecationWarning)
    for module in ("builders.dashboard", "builders.bargauge"):
        importlib.import_module(f"grafana_foundation_sdk.{module}")
