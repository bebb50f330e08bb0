"""Every Python snippet of the README runs, in order, as a reader would run them; and so do the docstrings' examples."""

import doctest
import inspect
import re
import warnings
from pathlib import Path

import pytest

import skdl
from skdl import _classifier, _displays, _show_versions, onnx

ROOT = Path(__file__).parent.parent


@pytest.mark.usefixtures("mnist")
def test_readme(monkeypatch, capsys):
    pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks since 1.9")
    monkeypatch.chdir(ROOT)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(snippets) >= 2
    namespace = {}
    with warnings.catch_warnings(action="error"):
        for snippet in snippets:
            exec(compile(snippet, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    error = float(re.search(r"([\d.]+) % test error", printed).group(1))
    assert error < 7.6
    assert "['cat']" in printed


def test_readme_needs_no_file_beside_it():
    """Indexes of packages show it alone, where a relative link leads nowhere."""
    links = re.findall(r"\]\(([^)]*)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_readme_names_the_commands_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_help_opens_with_an_example():
    _, example, *_ = inspect.getdoc(skdl).split("\n\n")
    assert re.match(r"(>>> .*\n){3}\S", example)


@pytest.mark.parametrize(
    "function",
    [skdl.SoftmaxRegressionClassifier, *(getattr(skdl.SoftmaxRegressionClassifier, name) for name in
     ("fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "decision_function")),
     *(function for display in (skdl.LossCurveDisplay, skdl.SearchDisplay)
       for function in (display, display.from_estimator, display.plot))],
)  # fmt: skip
def test_docstrings_name_the_parameters(function):
    sections = re.split(r"\n +(\w[\w ]+)\n +-+\n", inspect.getdoc(function).replace("\n", "\n "))
    documented = re.findall(r"^ ([\w, ]+) : ", sections[sections.index("Parameters") + 1], re.MULTILINE)
    documented = [name for names in documented for name in names.split(", ")]
    assert documented == [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("module", [_classifier, _displays, _show_versions, onnx, skdl])
def test_docstring_examples(module):
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
    assert results.attempted > 0
