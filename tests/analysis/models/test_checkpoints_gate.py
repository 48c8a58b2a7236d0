"""The gate itself: entries, views and damage, without a reading process; fuzzed."""

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from acon_analysis.models.checkpoints import CheckpointError, Limits, load_state_dict
from acon_analysis.models.checkpoints.errors import Refusal
from acon_analysis.models.checkpoints.loading import examine
from acon_analysis.models.checkpoints.matching import Wanted, make_plan
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.models.checkpoints.values import require_finite
from checkpoint_files import (
    dictionary,
    integer,
    legacy,
    net,
    safetensors,
    saved,
    sizes,
    state,
    storage,
    tensor,
    text,
    torch_zip,
)

LIMITS = Limits()
WANTED = {name: Wanted(tuple(value.shape), str(value.dtype)[6:]) for name, value in state().items()}
GOOD = {
    "zip": saved({"state_dict": state(), "epoch": 3}),
    "legacy": saved({"state_dict": state(), "epoch": 3}, legacy=True),
    "safetensors": save(state()),
}


def read(raw: bytes, path: Path, entry: str | None = None) -> dict[str, bytes]:
    """Return the bytes of each planned tensor as the gate finds them."""
    path.write_bytes(raw)
    with Source(path, LIMITS) as source:
        contents = examine(source, LIMITS)
        plan = make_plan(contents, WANTED, entry, LIMITS)
        require_finite(source, contents, plan)
        taken = {item.name: item.record for item in plan.taken if item.record}
        return {name: source.read(*contents.byte_range(taken[name])) for name in WANTED}


@contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder) / "weights.pth"


EXPECTED = {name: value.numpy().tobytes() for name, value in state().items()}


@pytest.mark.parametrize("kind", GOOD)
def test_the_gate_finds_the_bytes(kind: str, tmp_path: Path) -> None:
    assert read(GOOD[kind], tmp_path / "weights") == EXPECTED


@pytest.mark.parametrize("kind", GOOD)
def test_every_truncation_is_refused(kind: str, tmp_path: Path) -> None:
    raw = GOOD[kind]
    step = max(len(raw) // 150, 1)
    for length in [*range(0, len(raw), step), len(raw) - 1]:
        with pytest.raises(Refusal):
            read(raw[:length], tmp_path / "weights")


@pytest.mark.parametrize("kind", GOOD)
def test_a_flipped_bit_changes_no_weight_silently(kind: str, tmp_path: Path) -> None:
    raw = GOOD[kind]
    for position in range(0, len(raw), 7):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 5
        try:
            found = read(bytes(flipped), tmp_path / "weights")
        except Refusal:
            continue
        pairs = zip(b"".join(found.values()), b"".join(EXPECTED.values()), strict=True)
        changed = [(new, old) for new, old in pairs if new != old]
        # Without a checksum a weight can change unseen, but only itself; the zip format has one.
        allowed = [] if kind == "zip" else [(flipped[position], raw[position])]
        assert changed in ([], allowed), position


@pytest.mark.parametrize(
    ("outer", "said"),
    [
        ({"state_dict": 1}, "taken from 'state_dict'"),
        ({"model": 1}, "taken from 'model'"),
        ({"model_state_dict": 1}, "taken from 'model_state_dict'"),
        ({"ema": 1}, "taken from 'ema'"),
        ({"state_dict_ema": 1}, "taken from 'state_dict_ema'"),
        ({"epoch": 3, "network": 1}, "taken from 'network'"),
        ({"model": {"state_dict": 1}}, "taken from 'model.state_dict'"),
        ({"ema": 1, "model": 1}, "taken from 'model' (the file also has 'ema')"),
        ({"ema": 1, "model": 1, "state_dict": 1}, "taken from 'state_dict' (the file also has 'mo"),
        ({"state_dict": None, "model": 1}, "taken from 'model'"),
    ],
)
def test_entries(outer: dict[str, Any], said: str, tmp_path: Path) -> None:
    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}
        return state() if value == 1 else value

    path = tmp_path / "weights.pth"
    path.write_bytes(saved(fill(outer)))
    with Source(path, LIMITS) as source:
        plan = make_plan(examine(source, LIMITS), WANTED, None, LIMITS)
    assert plan.notes[0].startswith(said)


def test_asking_for_an_entry(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in state().items()}
    raw = saved({"epoch": 1, "state_dict": state(), "ema": other})
    found = read(raw, tmp_path / "weights", entry="ema")
    assert found == {name: value.numpy().tobytes() for name, value in other.items()}
    with pytest.raises(Refusal, match=r"no entry 'emma'.*it has 'epoch', 'state_dict', 'ema'"):
        read(raw, tmp_path / "weights", entry="emma")


def test_views_of_the_oldest_files(tmp_path: Path) -> None:
    view = b"(" + text("v") + b"K\x02K\x03t"
    made = tensor(storage("7", 6, tail=view), (2,), (1,), offset=1)
    data = (6).to_bytes(8, "little") + struct.pack("<6f", *range(6))
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy(dictionary((text("w"), made)), ["7"], data))
    with Source(path, LIMITS) as source:
        contents = examine(source, LIMITS)
        assert isinstance(contents.root, dict)
        assert source.read(*contents.byte_range(contents.root["w"])) == struct.pack("<2f", 3, 4)


def test_python_2_and_gpu_files(tmp_path: Path) -> None:
    weights = tensor(storage().replace(b"ctorch\n", b"ctorch.cuda\n"), (1,), (1,))
    pairs = b"ccollections\nOrderedDict\n]](U\x01w" + weights + b"ea\x85R"
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_zip(b"\x80\x02" + pairs + b".", {"0": struct.pack("<f", 5)}))
    with Source(path, LIMITS) as source:
        contents = examine(source, LIMITS)
        assert isinstance(contents.root, dict)
        assert source.read(*contents.byte_range(contents.root["w"])) == struct.pack("<f", 5)


def test_files_without_checksums(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        raw = saved(state())
    finally:
        torch.serialization.set_crc32_options(before)
    assert read(raw, tmp_path / "weights") == EXPECTED


def test_keys_that_all_have_one_hash_take_no_time(tmp_path: Path) -> None:
    """Forty thousand of them, in a dictionary, would take minutes."""
    keys = b"".join(integer((2**61 - 1) * n) + b"N" for n in range(1, 40_001))
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_zip(b"\x80\x02}(" + keys + b"u."))
    with pytest.raises(CheckpointError, match=r"has the key 2305843009213693951, expected a name"):
        load_state_dict(path, net())


# Fuzzing: whatever the bytes, the only exception is a CheckpointError, and it comes soon.


@pytest.fixture(autouse=True, scope="module")
def no_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Refusal("here the reading process would start")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("acon_analysis.models.checkpoints.loading.convert", stop)
        patch.setenv("ACON_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


MODEL = net()


def survives(raw: bytes) -> None:
    said = ""
    with scratch() as path:
        path.write_bytes(raw)
        try:
            result = load_state_dict(path, MODEL)
        except CheckpointError as error:
            said = str(error)
        else:
            assert result.state.keys() == WANTED.keys()
            assert all(value.isfinite().all() for value in result.state.values())
    assert said.isprintable()
    assert len(said) < 1500


fuzz = settings(max_examples=150, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])


@given(st.binary(max_size=300), st.sampled_from([b"", *(raw[:30] for raw in GOOD.values())]))
@fuzz
def test_random_bytes(tail: bytes, head: bytes) -> None:
    survives(head + tail)


@given(st.data())
@fuzz
def test_mutated_files(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(sorted(GOOD.values()))))
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.binary(max_size=9))
        length = data.draw(st.sampled_from([0, 1, len(piece), len(piece)]))
        raw[start : start + length] = piece
        if not raw:
            break
    survives(bytes(raw))


NUMBERS = st.one_of(st.integers(0, 5), st.sampled_from([10**12, 2**63, -1, 2**400]))
_numbers = NUMBERS.map(lambda n: pickle.dumps(n, 2)[2:-1])
INSTRUCTIONS = st.one_of(
    st.sampled_from(
        [bytes([code]) for code in b"()]}.0126NQRVabdeghijlopqrstu\x81\x85\x86\x87\x88"]
    ),
    st.sampled_from([b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"h\x02", b"j\x00\x00\x00\x00"]),
    st.sampled_from(
        [
            b"c" + name.encode() + b"\n"
            for name in (
                "collections\nOrderedDict", "collections\nCounter", "torch\nSize",
                "torch\nFloatStorage", "torch._utils\n_rebuild_tensor_v2",
                "torch._utils\n_rebuild_parameter", "_codecs\nencode", "numpy\ndtype",
                "numpy.core.multiarray\nscalar", "argparse\nNamespace", "os\nsystem",
            )
        ]
    ),
    st.text(max_size=5).map(text),
    st.sampled_from(["storage", "0", "cpu", "latin1", "f8", "state_dict", "w"]).map(text),
    _numbers,
    st.lists(NUMBERS.filter(lambda n: n < 2**64), max_size=3).map(lambda n: sizes(*n)),
    st.just(storage()),
    st.just(tensor(storage(), (1,), (1,))),
)  # fmt: skip


@given(st.lists(INSTRUCTIONS, max_size=25), st.booleans())
@settings(fuzz, max_examples=300)
def test_random_pickles(instructions: list[bytes], old: bool) -> None:
    pickled = b"\x80\x02" + b"".join(instructions) + b"."
    survives(legacy(pickled, ["0"], bytes(12)) if old else torch_zip(pickled, {"0": bytes(4)}))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "w"]), inner
        ),
    ),
    max_leaves=12,
)


@given(JSON, st.binary(max_size=20))
@fuzz
def test_random_headers(header: object, data: bytes) -> None:
    survives(safetensors(header, data))
