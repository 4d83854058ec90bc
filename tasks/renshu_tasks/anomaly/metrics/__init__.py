"""Metrics of anomaly scores and alarms. docs/metrics.md defines each by its formula."""
