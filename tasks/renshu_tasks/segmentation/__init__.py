"""Segmentation: from a folder of scans to masks in patient space, in 3-D and 2-D."""
