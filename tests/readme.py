"""The README's tables of components, made from the dicts: `python -m tests.readme` (make readme) writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from fedmpi.cli import app

README = Path(__file__).parent.parent / "README.md"
TABLE = re.compile(r"(<!-- fedmpi list (\S+) --markdown -->\n).*?(\n\n)", re.DOTALL)


def made(text: str) -> str:
    """The README's text with every marked table as the dicts have it now."""

    def table(found: re.Match[str]) -> str:
        done = CliRunner().invoke(app, ["list", found[2], "--markdown"])
        assert done.exit_code == 0, done.output
        return found[1] + done.output.strip() + found[3]

    return TABLE.sub(table, text)


if __name__ == "__main__":
    README.write_text(made(README.read_text(encoding="utf-8")), encoding="utf-8")
