"""The README's own code prints what the README says."""

import contextlib
import io
import re
from pathlib import Path


def test_readme_code_prints_what_it_shows():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code, shown = re.search(r"```python\n(.*?)```\n```\n(.*?)```", text, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown
