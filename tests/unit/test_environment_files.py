"""environment.yml, env.txt and check_environment.py in step with pyproject.toml; the other project files."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from scripts.check_environment import find_problems, read_requirements


@pytest.fixture(scope="module")
def pyproject(repo_root: Path) -> str:
    return (repo_root / "pyproject.toml").read_text()


def read_env_txt(root: Path) -> list[str]:
    lines = (root / "env.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_env_txt_is_pyproject(repo_root: Path, pyproject: str) -> None:
    assert read_env_txt(repo_root) == read_requirements(pyproject, extra="dev")


def test_environment_yml_installs_env_txt(repo_root: Path) -> None:
    environment: dict[str, Any] = yaml.safe_load((repo_root / "environment.yml").read_text())
    assert environment["name"] == "avqacl-moe"
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r env.txt", "-e ."]
    assert "pip" in environment["dependencies"]


def test_environment_yml_has_a_fitting_python(repo_root: Path, pyproject: str) -> None:
    environment = yaml.safe_load((repo_root / "environment.yml").read_text())
    versions = [
        re.match(r"python=(\d+\.\d+)$", entry)
        for entry in environment["dependencies"]
        if isinstance(entry, str)
    ]
    version = next(match.group(1) for match in versions if match)
    wanted = re.search(r'^requires-python = "(.*)"$', pyproject, re.MULTILINE)
    assert wanted is not None
    assert Requirement(f"python{wanted.group(1)}").specifier.contains(version)


def test_plain_reader_agrees_with_a_toml_parser(pyproject: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads(pyproject)["project"]
    assert read_requirements(pyproject) == project["dependencies"]
    assert (
        read_requirements(pyproject, "dev")
        == project["dependencies"] + project["optional-dependencies"]["dev"]
    )


def test_requirements_are_ranges(pyproject: str) -> None:
    for line in read_requirements(pyproject, "dev"):
        assert {specifier.operator for specifier in Requirement(line).specifier} <= {">=", "<", "~=", "!="}, (
            line
        )


def test_missing_and_old_packages_are_named() -> None:
    problems = find_problems(
        ["no-such-package-here>=1", "numpy>=999", "numpy>=1", "numpy>=999; python_version < '3'"]
    )
    assert len(problems) == 2
    assert "no-such-package-here is missing" in problems[0]
    assert re.match(r"numpy is [\d.]+, expected numpy>=999", problems[1])


def test_reader_refuses_a_text_without_the_array() -> None:
    with pytest.raises(ValueError, match="no array named 'dependencies'"):
        read_requirements("[project]\nname = 'x'\n")


def test_citation_names_both_systems(repo_root: Path) -> None:
    citation = yaml.safe_load((repo_root / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    titles = " ".join(reference["title"] for reference in citation["references"])
    assert "AVQACL-MoE: Anchor-Based Mixture-of-Experts" in titles and "AoE-MTL" in titles
    assert "10.5281/zenodo.17622521" in {reference.get("doi") for reference in citation["references"]}


def test_license_is_mit(repo_root: Path) -> None:
    assert (repo_root / "LICENSE").read_text().startswith("MIT License")
