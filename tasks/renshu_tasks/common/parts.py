"""The parts of a data set, and the names that sources give them."""

PARTS = ("train", "val", "test")
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
