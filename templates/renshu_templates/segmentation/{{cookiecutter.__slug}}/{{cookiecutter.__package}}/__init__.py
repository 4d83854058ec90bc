"""{{ cookiecutter.name }}: which structure each voxel of a scan belongs to."""
