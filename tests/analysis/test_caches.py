"""What lies in a cache is believed, so only this user may have put it there."""

import hashlib
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import forked_reader
from acon_analysis.data import cifar, hashes
from acon_analysis.files import CacheWarning, is_own_file, keep_private, private_cache, shared_by
from acon_analysis.models.checkpoints import CheckpointError, load_state_dict
from acon_hooks.moments.native import build
from acon_hooks.moments.native import sums as native_sums
from acon_hooks.moments.native.build import compiler_path
from checkpoint_files import net, saved, state

OTHER_USER = 65534
is_root = hasattr(os, "geteuid") and os.geteuid() == 0
as_root = pytest.mark.skipif(not is_root, reason="only root can give a file to another user")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "shared" / "cache"))
    monkeypatch.setattr(native_sums, "_kept", {})
    forked_reader.use(monkeypatch)
    return tmp_path / "shared" / "cache"


def others_can_write(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)


def a_group_can_write(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o770)


def sticky(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o1777)


def others_can_exchange_it(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.parent.chmod(0o777)
    cache.chmod(0o700)


def a_link_through_the_folder_of_others(cache: Path) -> None:
    others_can_exchange_it(cache.parent / "open" / "way")
    (cache.parent / "open" / "way" / "link").symlink_to(cache.parent / "mine")
    (cache.parent / "mine").mkdir(mode=0o700)
    cache.symlink_to(cache.parent / "open" / "way" / "link")


def of_another_user(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o755)
    os.chown(cache, OTHER_USER, OTHER_USER)


def below_another_user(cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o700)
    os.chown(cache.parent, OTHER_USER, OTHER_USER)


NOT_MINE = [
    others_can_write,
    a_group_can_write,
    sticky,
    others_can_exchange_it,
    a_link_through_the_folder_of_others,
    pytest.param(of_another_user, marks=as_root),
    pytest.param(below_another_user, marks=as_root),
]


@pytest.mark.parametrize("make", NOT_MINE)
def test_a_folder_of_others_is_not_used(make: Callable[[Path], None], cache: Path) -> None:
    make(cache)
    with pytest.warns(CacheWarning, match=r"is not used: .*; ACON_CACHE names another one"):
        assert private_cache() is None


def test_a_relative_folder_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".cache").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACON_CACHE", ".cache")
    with pytest.warns(
        CacheWarning, match=r"'.cache/checkpoints' is not used: its path is relative"
    ):
        assert private_cache("checkpoints") is None
    assert not list((tmp_path / ".cache").iterdir())


@as_root
def test_nothing_is_made_behind_the_link_of_another_user(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "behind").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("behind")
    os.chown(tmp_path / "link", OTHER_USER, OTHER_USER, follow_symlinks=False)
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "link" / "new" / "cache"))
    with pytest.warns(CacheWarning, match=r"link' belongs to another user"):
        assert private_cache() is None
    assert not list((tmp_path / "behind").iterdir())


def test_nothing_is_made_where_others_can_write(cache: Path) -> None:
    cache.parent.mkdir()
    cache.parent.chmod(0o777)
    with pytest.warns(CacheWarning, match="others can write"):
        assert private_cache() is None
    assert not cache.exists()


def test_a_new_folder_is_private_whatever_the_umask_says(cache: Path) -> None:
    before = os.umask(0)
    try:
        assert private_cache() == cache
        assert keep_private(cache / "a", b"x")
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert (cache / "a").stat().st_mode & 0o777 == 0o600
    assert is_own_file(cache / "a")


def test_a_link_in_a_folder_of_ones_own_is_followed(cache: Path) -> None:
    (cache.parent / "large").mkdir(parents=True, mode=0o700)
    cache.symlink_to("large")
    assert private_cache() == cache


def test_a_group_with_one_member_is_no_other_user(tmp_path: Path) -> None:
    above = tmp_path / "home"
    (above / "cache").mkdir(parents=True, mode=0o700)
    above.chmod(0o775)
    try:
        alone = above.owner() == above.group()
    except KeyError:
        alone = False
    assert (shared_by(above / "cache") == "") is alone


def test_writing_replaces_a_link_and_leaves_what_it_leads_to(cache: Path, tmp_path: Path) -> None:
    private_cache()
    (tmp_path / "precious").write_text("mine")
    (cache / "a").symlink_to(tmp_path / "precious")
    assert not is_own_file(cache / "a")
    assert keep_private(cache / "a", b"x")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (cache / "a").read_bytes() == b"x"


def test_a_file_that_others_can_write_is_not_believed(cache: Path) -> None:
    private_cache()
    keep_private(cache / "a", b"x")
    (cache / "a").chmod(0o666)
    assert not is_own_file(cache / "a")
    if is_root:
        (cache / "a").chmod(0o600)
        os.chown(cache / "a", OTHER_USER, OTHER_USER)
        assert not is_own_file(cache / "a")


def test_a_temporary_folder_that_others_can_exchange_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_can_write(cache)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "open"))
    file = tmp_path / "a.pth"
    file.write_bytes(saved(state()))
    with (
        pytest.warns(CacheWarning),
        pytest.raises(CheckpointError, match=r"temporary folder .* is not safe: .*set ACON_CACHE"),
    ):
        load_state_dict(file, net())
    assert not list((tmp_path / "open").iterdir())


def test_a_compiler_in_the_working_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c++", "g++", "clang++", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    for path in (".", "", f"{os.pathsep}.", "../" + tmp_path.name):
        monkeypatch.setenv("PATH", path)
        assert compiler_path() == ""
    monkeypatch.setenv("CXX", "./mine")  # which the user names
    assert compiler_path() == str(tmp_path / "mine")
    (tmp_path / "mine").write_text("#!/bin/sh\npwd\n")
    assert Path(build._output([compiler_path()]).strip()) == Path(build.__file__).parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel's library, from the usual cache or compiled."""
    if not compiler_path():
        pytest.skip("there is no C++ compiler")
    made = tmp_path_factory.mktemp("kernel") / "moments.so"
    with build.library(compiler_path(), None) as path:
        shutil.copy(path, made)
    return made


@pytest.fixture
def quick(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that takes no time: it copies what was compiled."""
    script = compiled.with_name("quick")
    script.write_text(
        "#!/bin/sh\n[ $1 = --version ] && exit\nwhile [ $1 != -o ]; do shift; done\n"
        f'cp "{compiled}" "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return script


def planted(folder: Path, canary: Path) -> Path:
    """Put a library that leaves a mark when it is loaded under the kernel's name."""
    source = folder / "planted.c"
    source.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) static void run(void) "
        f'{{ fclose(fopen("{canary}", "w")); }}\n'
    )
    made = folder / "planted.so"
    # g++ compiles C, too, and is what there is
    found = shutil.which("cc") or shutil.which("g++") or "cc"
    subprocess.run([found, "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    content = made.read_bytes()
    name = f"moments-{build._digest(compiler_path())}"
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{name}-{digest}.so"
    path.write_bytes(content)
    (folder / f"{name}.so").write_bytes(content)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("make", NOT_MINE)
def test_a_planted_kernel_does_not_run(
    make: Callable[[Path], None], cache: Path, quick: Path, tmp_path: Path
) -> None:
    make(cache)
    planted(cache, tmp_path / "canary")
    before = sorted(cache.iterdir())
    said: list[str] = []
    with pytest.warns(CacheWarning):
        kernel = native_sums.native(said.append)
    assert not (tmp_path / "canary").exists()
    assert cache not in kernel.path.parents
    assert sorted(cache.iterdir()) == before
    assert said == ["compiling the kernel of moments, for this process (some seconds)"]


def test_a_planted_file_in_ones_own_folder_does_not_run(
    cache: Path, quick: Path, tmp_path: Path
) -> None:
    private_cache()
    path = planted(cache, tmp_path / "canary")
    path.chmod(0o777)
    kept = native_sums.native().path
    assert not (tmp_path / "canary").exists()
    assert kept != path
    assert kept.parent == cache


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", None])
def test_a_damaged_kernel_is_compiled_again(
    damage: bytes | None, cache: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = native_sums.native().path
    content = path.read_bytes()
    path.unlink()  # this process has it mapped
    path.write_bytes(content[:-5000] if damage is None else damage)
    path.chmod(0o600)
    monkeypatch.setattr(native_sums, "_kept", {})
    said: list[str] = []
    again = native_sums.native(said.append).path
    assert len(said) == 1
    assert again.read_bytes() == quick.with_name("moments.so").read_bytes()
    monkeypatch.setattr(native_sums, "_kept", {})
    native_sums.native(said.append)
    assert len(said) == 1


def unwritable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the cache one that nobody can make or write to; root can write anywhere else."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.parent.joinpath("file").touch()
    monkeypatch.setenv("ACON_CACHE", str(cache.parent / "file" / "cache"))


def test_without_a_cache_the_kernel_is_compiled_and_used(
    cache: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(cache, monkeypatch)
    with pytest.warns(CacheWarning, match=r"cannot be made \(File exists\)"):
        kernel = native_sums.native()
    assert not kernel.path.exists()
    assert native_sums.native() is kernel


def test_a_checkpoint_of_others_is_not_taken(cache: Path, tmp_path: Path) -> None:
    path, good = tmp_path / "weights.pth", state()
    path.write_bytes(saved(good))
    load_state_dict(path, net())
    (own,) = cache.glob("checkpoints/*.safetensors")
    (index,) = cache.glob("checkpoints/*.json")
    other = {name: value + 1 for name, value in good.items()}
    raw = safetensors_of(other)
    digest = hashlib.sha256(raw).hexdigest()
    own.with_stem(digest).write_bytes(raw)
    index.write_text(f'{{"weights_sha256": "{digest}"}}')
    forged = load_state_dict(path, net()).state  # what this user's own cache says is believed
    assert torch.equal(forged["0.bias"], good["0.bias"] + 1)
    cache.joinpath("checkpoints").chmod(0o777)
    with pytest.warns(CacheWarning):
        found = load_state_dict(path, net()).state
    assert all(torch.equal(found[name], value) for name, value in good.items())
    cache.joinpath("checkpoints").chmod(0o700)
    index.chmod(0o666)
    found = load_state_dict(path, net()).state
    assert all(torch.equal(found[name], value) for name, value in good.items())


def safetensors_of(weights: dict[str, torch.Tensor]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(weights)


def test_checkpoints_without_a_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(cache, monkeypatch)
    path, good = tmp_path / "weights.pth", state()
    path.write_bytes(saved(good))
    with pytest.warns(CacheWarning):
        found = load_state_dict(path, net()).state
    assert all(torch.equal(found[name], value) for name, value in good.items())


def test_hashes_of_others_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "WORTH_REMEMBERING", 1)
    monkeypatch.setattr(hashes, "_SETTLED_NS", -(10**12))
    (tmp_path / "a").write_bytes(b"a")
    memory = tmp_path / "run" / "hashes.parquet"
    (first,) = hashes.hash_files(tmp_path, ["a"], memory)
    assert memory.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(hashes, "_hash_one", lambda path: (1, 2, "read again"))
    assert hashes.hash_files(tmp_path, ["a"], memory) == [first]
    memory.chmod(0o666)
    assert hashes.hash_files(tmp_path, ["a"], memory) == [(1, "read again")]


def test_decoded_images_of_others_are_not_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    content = {b"data": np.full((10, 3072), 7, np.uint8), b"labels": list(range(10))}
    (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    monkeypatch.setenv("ACON_DATA", str(tmp_path / "data"))
    read = cifar._decoded.__wrapped__
    read("test")
    (kept,) = cache.glob("cifar10-*.npz")
    np.savez(kept, pixels=np.zeros((10, 32, 32, 3), np.uint8), labels=np.arange(10))
    assert read("test")[0].max() == 0
    kept.chmod(0o666)
    assert read("test")[0].min() == 7
    kept.write_bytes(kept.read_bytes()[:900])
    assert read("test")[0].min() == 7
    cache.chmod(0o777)
    with pytest.warns(CacheWarning):
        assert read("test")[0].min() == 7
