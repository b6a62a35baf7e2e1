"""The guides say what is true: their code runs and prints what it says, their commands exist, nothing is left out."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from documents import ROOT, blocks_of, fences_of, run_as_one_program

import dispatch_core
import dispatch_gateway
import langchain_dispatch
import llamaindex_dispatch
from dispatch_core import errors
from dispatch_core.__main__ import main
from dispatch_gateway import settings_from

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"])
RUN = [page for page in PAGES if blocks_of(page)]
LANGUAGES = {"python", "text", "bash", "yaml"}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=_name)
def test_the_blocks_of_a_page_are_a_program_that_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of(page)
    if any("default_embedder" in block.code for block in blocks):
        # As an exported graph the model is there in half a second; its vectors are the same.
        (tmp_path / "all-MiniLM-L6-v2").symlink_to(request.getfixturevalue("exported_minilm"))
        monkeypatch.setenv("DISPATCHER_MODELS", str(tmp_path))
    assert run_as_one_program(blocks) == [block.output for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {language for language, _ in fences_of(page)} <= LANGUAGES
    # A block of Python that is indented, or has white space behind its language, would not be run.
    assert len(re.findall(r"```\s*py", page.read_text("utf-8"))) == len(blocks_of(page))


@pytest.mark.parametrize("page", [page for page in PAGES if "bash" in dict(fences_of(page))], ids=_name)
def test_the_commands_shown_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for command in (code for language, code in fences_of(page) if language == "bash"):
        for target in re.findall(r"^make ([\w-]+)", command, re.M):
            assert re.search(rf"^{target}:", makefile, re.M)
        for verb in re.findall(r"^dispatcher ([\w-]+)", command, re.M):
            with pytest.raises(SystemExit, match=r"^0$"):
                main([verb, "--help"])
            told = capsys.readouterr().out
            [line] = re.findall(rf"^dispatcher {verb}(.*)$", command, re.M)
            assert all(option in told for option in re.findall(r"--[\w-]+", line))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=_name)
def test_the_modules_that_are_to_be_run_exist(page: Path) -> None:
    for module in set(re.findall(r"python -m ([\w.]+)", page.read_text("utf-8"))):
        assert find_spec(module) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if "yaml" in dict(fences_of(page))], ids=_name)
def test_settings_shown_can_be_served(page: Path, tmp_path: Path) -> None:
    key_hash = "sha256:" + "0" * 64
    for number, settings in enumerate(code for language, code in fences_of(page) if language == "yaml"):
        file = tmp_path / f"{number}.yaml"
        file.write_text(settings, "utf-8")
        named = dict.fromkeys(re.findall(r"\$\{(\w+)\}", settings), "k")
        assert settings_from(
            file, {name: key_hash if "HASH" in name else value for name, value in named.items()}
        ).models


@pytest.mark.parametrize("package", [dispatch_core, dispatch_gateway, langchain_dispatch, llamaindex_dispatch])
def test_every_public_name_has_an_entry_in_the_reference(package) -> None:
    shown = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    entries = re.findall(rf"^::: {package.__name__}\.(\w+)$", shown, re.M)
    assert sorted(entries) == sorted(package.__all__)


def test_the_reference_shows_the_tree_of_exceptions() -> None:
    [(_, tree)] = fences_of(ROOT / "docs" / "reference" / "exceptions.md")
    assert tree in (errors.__doc__ or "")


def test_every_page_is_in_the_navigation() -> None:
    told = (ROOT / "zensical.toml").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f'"{page.relative_to(ROOT / "docs").as_posix()}"' in told
