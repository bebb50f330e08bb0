"""Every page of docs/: its Python blocks run, from top to bottom, and print what the page says they print.

A block's output stands below it, in a block of text. A block whose fence says ``needs=shap`` runs where that package is
installed, and is left out elsewhere: the pages name the versions with which their authors ran it.
"""

import contextlib
import io
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python(?: needs=(\S+))?\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    needs: str | None
    code: str
    output: str | None
    line: int

    def printed(self, namespace, path):
        """What the block prints, run in the namespace that the blocks above it have left."""
        stream = io.StringIO()
        code = compile("\n" * self.line + self.code, path, "exec")  # a traceback then shows lines of the page
        with contextlib.redirect_stdout(stream):
            exec(code, namespace)
        return stream.getvalue()


def blocks(text):
    """The Python blocks of a page."""
    return [Block(*match.groups(), line=text[: match.start()].count("\n") + 1) for match in BLOCK.finditer(text)]


def _tidy(output):
    """An output without the spaces at the ends of its lines, which editors remove."""
    return [line.rstrip() for line in output.splitlines()]


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in (ROOT / page).read_text()])
@pytest.mark.usefixtures("mnist")
def test_page(page, tmp_path, monkeypatch):
    pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks since 1.9")
    text = (ROOT / page).read_text()
    assert text.count("```python") == len(blocks(text)), "a fence that this test does not understand"
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")  # as in a clone, where MNIST is
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    with warnings.catch_warnings(action="error"):
        for block in blocks(text):
            if block.needs is None:
                printed = block.printed(namespace, page)
            elif all(map(find_spec, block.needs.split(","))):
                with warnings.catch_warnings(action="default"):  # other packages warn of much that is not ours
                    printed = block.printed(namespace, page)
            else:
                continue
            if block.output is not None:
                assert _tidy(printed) == _tidy(block.output), f"{page}, line {block.line}"


def test_a_page_that_quotes_another_output_is_noticed():
    quoted = "A sum:\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    [block] = blocks(quoted)
    assert _tidy(block.printed({}, "page")) == ["2"] != _tidy(block.output)
