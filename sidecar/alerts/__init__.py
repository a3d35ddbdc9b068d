"""The alerts, declared once: as rules for Prometheus, as rules for Grafana, and judged from a scrape without either.

`catalogue.py` says what is asked, `thresholds.yaml` from which number on it is too much.
"""
