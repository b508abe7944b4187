"""The two READMEs say the same: sections, commands, samples and the model's figures."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH, RUSSIAN = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ru.md"))


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    lines = "".join(code_blocks(text, "sh")).splitlines()
    return [command for line in lines if (command := line.partition("#")[0].strip())]


def figures(text: str, heading: str) -> list[str]:
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return re.findall(r"\d+(?:[.,]\d+)?", "\n".join(rows))


def test_the_same_sections() -> None:
    assert ENGLISH.count("\n## ") == RUSSIAN.count("\n## ")


def test_the_same_commands() -> None:
    assert commands(RUSSIAN) == commands(ENGLISH)


def test_the_same_samples() -> None:
    assert code_blocks(RUSSIAN, "json") == code_blocks(ENGLISH, "json")


def test_the_same_figures_of_the_model() -> None:
    found = figures(ENGLISH, "The model, honestly")
    assert len(found) > 30
    assert figures(RUSSIAN, "Модель, честно") == found


def test_every_link_leads_somewhere() -> None:
    for text in (ENGLISH, RUSSIAN):
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (ROOT / target).exists(), target
