from pathlib import Path

import pytest

from cluster.cache import artefact, content_hash


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLOFLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_an_artefact_is_made_once() -> None:
    made = []

    def make(part: Path) -> None:
        made.append(part)
        part.write_text("done")

    first = artefact("bin/x-1/x", make)
    assert artefact("bin/x-1/x", make) == first
    assert first.read_text() == "done"
    assert len(made) == 1


def test_a_failed_step_leaves_nothing_under_the_final_name_and_starts_clean_again(
    cache: Path,
) -> None:
    def breaks(part: Path) -> None:
        write(part / "half", "…")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        artefact("gomod/x-1", breaks)
    assert not (cache / "gomod/x-1").exists()

    def works(part: Path) -> None:
        write(part / "whole", "done")

    assert [file.name for file in artefact("gomod/x-1", works).iterdir()] == ["whole"]


def test_the_hash_does_not_depend_on_order_or_on_what_python_leaves_behind(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a/one.py", "1"), write(tmp_path / "two.py", "2")
    before = content_hash([one.parent, two], root=tmp_path)
    write(tmp_path / "a/__pycache__/one.cpython-311.pyc", "compiled")
    assert content_hash([two, one.parent], root=tmp_path) == before


def test_content_names_modes_and_settings_all_change_the_hash(tmp_path: Path) -> None:
    file = write(tmp_path / "a", "1")
    seen = {content_hash([file], root=tmp_path)}
    seen.add(content_hash([file], root=tmp_path, extra=["BASE_IMAGE=x"]))
    file.chmod(0o755)
    seen.add(content_hash([file], root=tmp_path))
    write(file, "2")
    seen.add(content_hash([file], root=tmp_path))
    seen.add(content_hash([file.rename(tmp_path / "b")], root=tmp_path))
    assert len(seen) == 5


def test_text_cannot_move_between_files_unnoticed(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", "xy"), write(tmp_path / "b", "z")
    before = content_hash([a, b], root=tmp_path)
    write(a, "x")
    write(b, "yz")
    assert content_hash([a, b], root=tmp_path) != before
