"""Installing the engine never touches what it did not make."""

import zipfile
from pathlib import Path

import pytest

from planner.domain.errors import EngineError
from serving.cpu_engine import install


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(EngineError, match="left alone"):
        install.install(tmp_path, progress=print)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_complete_environment_is_not_installed_twice(tmp_path: Path) -> None:
    (tmp_path / install.OURS).write_text("")
    (tmp_path / "poolwise-stamp").write_text(install.wanted_stamp())
    said: list[str] = []
    install.install(tmp_path, progress=said.append)
    assert said == [f"engine environment {tmp_path} is up to date"]


def test_plugin_wheel_names_vllm_and_its_entry_point(tmp_path: Path) -> None:
    with zipfile.ZipFile(install.write_plugin_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
        info = f"vllm-{install.VLLM_VERSION}+cpu.dist-info"
        assert "Name: vllm\n" in wheel.read(f"{info}/METADATA").decode()
        assert "poolwise_calm:register" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "poolwise_calm.py" in names
