"""No patient in a name: cases appear by the user's own id or, where that tells who it is, a hash.

Readers read no tag that names a patient and masks are written without one, so what is left are the
names of files and folders, which scanners and archives like to make of patients' names.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from functools import cache
from pathlib import Path

TAGS = [
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
    "PatientBirthDate", "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers",
    "AccessionNumber", "StudyID", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName",
    "PerformingPhysicianName", "OperatorsName", "IssuerOfPatientID", "MedicalRecordLocator",
]  # fmt: skip
"""DICOM attributes that tell who a patient is or where he was (PS3.15, table E.1-1)."""

_SHORTEST = 4
"""Shorter values, such as the name Kim, would be found in names by chance: as words alone."""

_SEPARATORS = re.compile(r"[\W_]+")


def identifying(series: Path) -> set[str]:
    """What the tags of the first DICOM file of a folder say, in lower case, whole and part by part.

    Without blanks and signs, so that 1970-01-01 is 19700101. To compare with, never to be shown or
    kept.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    for file in sorted(path for path in series.iterdir() if path.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
        except (InvalidDicomError, OSError):
            continue
        values = {str(element.value).lower() for element in header if element.value}
        parts = {part for value in values for part in _SEPARATORS.split(value)}
        found = parts | {_SEPARATORS.sub("", value) for value in values}
        # One sign, or a number of two digits, tells nobody: it is that of a case as well.
        return {value for value in found if len(value) > (2 if value.isdigit() else 1)}
    return set()


def safe_id(name: str, series: Path | None) -> str:
    """The name of a case, or a hash of it if a tag of its DICOM series stands in it.

    Args:
        name: the user's own id of the case, or of the patient.
        series: folder of the series; None for files that have no such tags.
    """
    if series is None:
        return name
    words = _SEPARATORS.split(name.lower())
    told = "".join(words)
    for value in identifying(series):
        if value in words or (len(value) >= _SHORTEST and value in told):
            return hashed(name)
    return name


def hashed(name: str) -> str:
    """`case-` and ten hexadecimal digits: the same for the same name on this machine."""
    return f"case-{hmac.new(_salt(), name.encode(), hashlib.sha256).hexdigest()[:10]}"


@cache
def _salt() -> bytes:
    """The secret without which a hash cannot be tried out on a list of names.

    It stays outside every run folder: $RENSHU_SALT, else a file of the user's own, made once.
    """
    if value := os.environ.get("RENSHU_SALT"):
        return value.encode()
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = home / "renshu" / "salt"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(secrets.token_hex(32).encode())
    except FileExistsError:
        pass
    return file.read_bytes()
