"""The time series: blood pressure with one strange beat until config.yaml names one of your own."""

from renshu_tasks.anomaly.data import SeriesData, build
from renshu_tasks.anomaly.options import AnomalyOptions
from renshu_tasks.anomaly.options import DataOptions as DataOptions


def load(options: DataOptions) -> SeriesData:
    """Read and check the series, cut it into three parts in the order of time, say what was found.

    The first part is learned from, the second, normal points held out, gives the threshold, the
    rest is measured. A batch of a network is a list of one tensor: windows float32 [B, C, L].
    """
    return build(AnomalyOptions(data=options))
