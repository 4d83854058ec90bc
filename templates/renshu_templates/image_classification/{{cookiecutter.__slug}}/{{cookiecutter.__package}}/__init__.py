"""{{ cookiecutter.name }}: which class a picture belongs to."""
