"""`renshu bench anomaly`: series × detectors × seeds as independent jobs, and their leaderboard.

sources: which series; planted: events put into real normal data; jobs: one detector on one series;
pool: processes with limits; log: what is done; figures: from scores to numbers; table, ranks: from
numbers to a leaderboard; leaderboard, pages: HTML; command: the command line.
"""
