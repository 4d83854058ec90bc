"""Application templates: one folder each, drawn by cookiecutter, found through `renshu.templates`.

A template is a cookiecutter template without hooks, so that making a project runs none of its code.
Files that several templates have in common lie once in `_shared` and are linked from each.
"""

from pathlib import Path

from renshu_templates.template import Template

_HERE = Path(__file__).parent

anomaly = Template(_HERE / "anomaly")
blank = Template(_HERE / "blank")
image_classification = Template(_HERE / "image_classification")
segmentation = Template(_HERE / "segmentation")
text = Template(_HERE / "text")
