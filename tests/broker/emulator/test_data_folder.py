"""The data folder: private, made exclusively, and never through a symbolic link."""

import os
import stat
import sys
from pathlib import Path

import pytest

from i3tasks.emulator import EmulatorError, EmulatorProcess
from i3tasks.emulator.data_folder import DATABASE, prepare

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "below" / "data"
    with EmulatorProcess(folder):
        modes = {path.name: mode(path) for path in folder.iterdir()}
    assert mode(folder) == 0o700
    assert {DATABASE, ".gitignore"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_an_older_database_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch(0o644)
    (tmp_path / DATABASE).chmod(0o644)
    assert mode(prepare(tmp_path)) == 0o600


@pytest.mark.parametrize("is_link", [False, True])
def test_a_gitignore_that_is_there_stays(tmp_path: Path, is_link: bool) -> None:
    folder, theirs = tmp_path / "data", tmp_path / "theirs"
    folder.mkdir()
    theirs.write_text("precious")
    if is_link:
        (folder / ".gitignore").symlink_to(theirs)
    else:
        (folder / ".gitignore").write_text("precious")
    prepare(folder)
    assert (folder / ".gitignore").read_text() == theirs.read_text() == "precious"


def test_a_link_to_nothing_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ".gitignore").symlink_to(tmp_path / "elsewhere")
    prepare(folder)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"])
def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder, theirs = tmp_path / "data", tmp_path / "theirs"
    folder.mkdir()
    theirs.write_text("precious")
    (folder / name).symlink_to(theirs)
    with pytest.raises(EmulatorError, match="symbolic link"):
        EmulatorProcess(folder).start()
    assert theirs.read_text() == "precious"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "theirs")
    with pytest.raises(FileExistsError, match="symbolic link"):
        prepare(tmp_path / "data")
    assert os.listdir(tmp_path / "theirs") == []
