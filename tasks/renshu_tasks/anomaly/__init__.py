"""Anomaly detection in time series: a score a point, a threshold, alarms, batch and stream."""
