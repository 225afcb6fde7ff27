"""Commands of docs/ci.md's jobs and of the README's one-line set-ups, so that CI runs what readers are told to run.

python tools/readme_jobs.py github|gitlab    the job's commands, one a line
python tools/readme_jobs.py main|tests       the set-up line for the main job, or for the tests
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "ci.md")


def jobs(text: str) -> dict[str, list[str]]:
    """Job name -> shell commands, read from the code blocks of a page."""
    blocks = re.findall(r"^```(yaml|sh)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found: dict[str, list[str]] = {}
    for language, block in blocks:
        if language == "yaml" and "runs-on:" in block:
            found["github"] = re.findall(r"^ +- run: (.+)$", block, re.MULTILINE)
        elif language == "yaml" and "script:" in block:
            script = block.split("script:\n")[1].split("  artifacts:")[0]
            found["gitlab"] = re.findall(r"^ +- (.+)$", script, re.MULTILINE)
        elif language == "sh" and "-m venv" in block:
            found["tests" if "pytest" in block else "main"] = [block.strip()]
    return found


if __name__ == "__main__":
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    if len(sys.argv) != 2 or sys.argv[1] not in (found := jobs(text)):
        sys.exit(__doc__)
    print("\n".join(found[sys.argv[1]]))
