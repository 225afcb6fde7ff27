"""What the README and docs/ tell readers to type: CI finds the story, and every sifkit command is understood."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest

from sifkit.cli import main
from tools import readme_jobs

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("tour", "recipes", "errors", "ci", "install"))]


def commands(text: str) -> list[str]:
    """The sifkit commands of a page: in shell and YAML blocks, in indented lines, and in `code` that has an argument."""
    blocks = re.findall(r"^```(?:sh|yaml)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(.*sifkit .*)$", text, re.MULTILINE)
    lines += re.findall(r"`(sifkit [a-z]+ [^`]*)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    parts = [part for line in lines for part in re.split(r"&&|\|\||[|;]", re.sub(r"(^|\s)#.*", "", line))]
    return [found[1] for part in parts if (found := re.search(r"(?:^|[ /])sifkit ((?:-q )?[a-z]+ .+)$", part))]


@pytest.mark.parametrize("page", ["docs/tour.md", "docs/checking.md"])
def test_python_of_a_page_imports_what_there_is(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        imports = [line for line in ast.parse(block).body if isinstance(line, ast.Import | ast.ImportFrom)]
        assert imports
        exec(compile(ast.Module(imports, []), page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], page: str
) -> None:
    """Its words parse: it fails, if at all, on files that are not there, never on usage."""
    found = [words for words in commands((ROOT / page).read_text(encoding="utf-8")) if "pip install" not in words]
    assert found or page == "docs/install.md"
    for words in found:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(tmp_path / "run")
        arguments = [re.sub(r"\$\w+", "1", word) for word in shlex.split(words)]
        code = main(arguments)
        runs = arguments[0] in ("exec", "run", "shell")
        missing = 8 if "fsck" in arguments or {"sif", "check"} <= set(arguments) else 2 if "diff" in arguments[:2] else 1
        assert code in (0, 255 if runs else missing), (words, capfd.readouterr().err)
        assert "o such option" not in capfd.readouterr().err, words


@pytest.mark.parametrize("page", ["tour", "checking"])
def test_what_python_examples_import_is_there(page: str) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    imports = [line for block in blocks for line in block.splitlines() if line.startswith(("import ", "from "))]
    assert imports
    for line in imports:
        exec(line, {})


def test_the_story_is_the_readmes_shell_blocks() -> None:
    story = readme_jobs.story(README)
    verbs = [line.split(" env.img")[0] for line in story]
    assert verbs[0].startswith("sifkit overlay create --size 10G --profile conda --owner me")
    assert sum(line.startswith("sifkit exec --overlay") for line in story) >= 4
    assert "sifkit exec" in story[-1]
    assert set(story) <= set(README.splitlines())
    assert not any(".venv" in line for line in story)


@pytest.mark.parametrize("installed", [True, False])
def test_apptainers_lines_are_left_out_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(readme_jobs.shutil, "which", lambda name: "/usr/bin/apptainer" if installed else None)
    lines = readme_jobs.main("story").splitlines()
    assert any(line.startswith("apptainer ") for line in lines) == installed
    assert any(line.startswith("sifkit overlay attach") or "sifkit overlay attach" in line for line in lines)


@pytest.mark.parametrize("job", ["main", "tests", "github", "gitlab"])
def test_jobs_are_found(job: str) -> None:
    assert "venv" in readme_jobs.main(job)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 100
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / page).parent.joinpath(target).exists(), (page, target)
