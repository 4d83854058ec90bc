"""{{ cookiecutter.name }}: which label a text has."""
