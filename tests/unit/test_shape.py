"""The measured shape of a package is that of its files."""

from pathlib import Path

import shape


def test_a_package_is_measured_without_running_it(tmp_path: Path) -> None:
    files = {
        "__init__.py": "raise SystemExit('it was run')\n",
        "low/__init__.py": "from shaped.high import top\n",
        "high/__init__.py": "",
        "high/top.py": "import shaped.high.side\n" + "import shaped.low.leaf\n",
        "high/side.py": "import shaped.high.top\n",
        "low/leaf.py": "def short(): ...\ndef long():\n"
        + "    ...\n" * 49
        + "import shaped.high.top\n",
    }
    for name, content in files.items():
        file = tmp_path / "shaped" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    found = shape.shape("shaped", tmp_path)

    assert (found.modules, found.lines) == (6, 57)
    assert (found.long, found.longest) == (1, 50)
    assert found.back_up >= 1, "one of the two rooms has to be below the other"
    assert found.circular == 3, "top, side and leaf"
