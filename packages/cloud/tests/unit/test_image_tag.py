"""The image's name follows its content, and what goes into it names no registry."""

import shutil
from pathlib import Path

import pytest

from ff_cloud.vms.image import content_tag, find_root, read_extra_ca
from ff_core.errors import InvalidInput

ROOT = find_root(Path(__file__))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "images", tmp_path / "images")
    shutil.copytree(ROOT / "packages/core/src", tmp_path / "packages/core/src")
    return tmp_path


def test_the_same_content_has_the_same_name_wherever_it_lies(tree: Path) -> None:
    assert content_tag(tree, b"") == content_tag(ROOT, b"")
    assert content_tag(tree, b"").startswith("ff-workspace:")


@pytest.mark.parametrize(
    "changed",
    [
        "images/workspace/Dockerfile",
        "images/workspace/requirements.lock",
        "images/workspace/trust.py",
        "images/workspace/rootfs/opt/ff/bin/claude-as-dev",
        "packages/core/src/ff_core/ids.py",
    ],
)
def test_changes_with_everything_that_goes_in(tree: Path, changed: str) -> None:
    before = content_tag(tree, b"")
    with (tree / changed).open("a") as file:
        file.write("\n# changed\n")
    assert content_tag(tree, b"") != before


def test_changes_with_a_new_source_a_mode_and_the_extra_ca(tree: Path) -> None:
    seen = {content_tag(tree, b""), content_tag(tree, b"a certificate")}
    (tree / "images/workspace/rootfs/opt/ff/bin/claude-as-dev").chmod(0o644)
    seen.add(content_tag(tree, b""))
    (tree / "packages/core/src/ff_core/brand_new.py").write_text("")
    seen.add(content_tag(tree, b""))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "ignored",
    [
        "packages/core/src/ff_core/__pycache__/ids.cpython-311.pyc",
        "packages/core/src/ff_core/testing/brand_new.py",
        "packages/core/tests/unit/test_brand_new.py",
        "images/workspace/requirements.in",
    ],
)
def test_does_not_change_with_what_stays_out(tree: Path, ignored: str) -> None:
    before = content_tag(tree, b"")
    path = tree / ignored
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("changed")
    assert content_tag(tree, b"") == before


def test_the_root_is_found_from_below_and_missed_with_a_sentence(tmp_path: Path) -> None:
    assert find_root(ROOT / "packages" / "cloud") == ROOT
    with pytest.raises(InvalidInput, match="--root"):
        find_root(tmp_path)


def test_the_extra_ca_is_the_argument_then_ff_extra_ca_then_ssl_cert_file(tmp_path: Path) -> None:
    names = {name: tmp_path / name for name in ("argument", "setting", "system")}
    for name, path in names.items():
        path.write_text(name)
    environ = {"FF_EXTRA_CA": str(names["setting"]), "SSL_CERT_FILE": str(names["system"])}
    assert read_extra_ca(names["argument"], environ) == b"argument"
    assert read_extra_ca(None, environ) == b"setting"
    assert read_extra_ca(None, {"SSL_CERT_FILE": str(names["system"])}) == b"system"
    assert read_extra_ca(None, {}) == b""
    with pytest.raises(InvalidInput, match="FF_EXTRA_CA"):
        read_extra_ca(None, {"FF_EXTRA_CA": str(tmp_path / "absent")})


@pytest.mark.parametrize("name", ["requirements.lock", "images/workspace/requirements.lock"])
def test_locks_name_no_host_and_hash_every_package(name: str) -> None:
    entries = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in entries if line and not line.startswith("#")]
    assert not [line for line in entries if "://" in line or "index-url" in line]
    assert packages
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


def test_what_makes_the_image_names_no_host() -> None:
    files = [*(ROOT / "images").rglob("*"), *(ROOT / "scripts").glob("*.sh")]
    naming = [
        path.name
        for path in files
        if path.is_file() and not path.name.endswith("lock.sh") and "://" in path.read_text(encoding="utf-8")
    ]
    assert naming == []
