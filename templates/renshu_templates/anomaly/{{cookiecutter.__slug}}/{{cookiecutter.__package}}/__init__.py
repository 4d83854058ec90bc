"""{{ cookiecutter.name }}: which points of a time series are not as usual."""
