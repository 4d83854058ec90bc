"""{{ cookiecutter.name }}: which class a row of numbers belongs to."""
