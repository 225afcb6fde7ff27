"""Commands of the README and of docs/ci.md's jobs, so that CI runs what readers are told to run.

python tools/readme_jobs.py github|gitlab    the job's commands, one a line
python tools/readme_jobs.py main|tests       the set-up line for the main job, or for the tests
python tools/readme_jobs.py story            the commands of the README's story; without Apptainer's where it is not installed
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "ci.md")
STORY = "## An environment for a thousand jobs"
"""The section whose shell blocks are the story."""


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


def story(text: str) -> list[str]:
    """Shell commands of the README's story, as they are written there."""
    section = text.split(f"{STORY}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def main(job: str) -> str:
    """The commands of one job, one a line; '' where there is no such job."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    if job == "story":
        installed = shutil.which("apptainer") is not None
        return "\n".join(line for line in story(text) if installed or not line.startswith("apptainer "))
    return "\n".join(jobs(text).get(job, ()))


if __name__ == "__main__":
    commands = main(sys.argv[1]) if len(sys.argv) == 2 else ""
    if not commands:
        sys.exit(__doc__)
    print(commands)
