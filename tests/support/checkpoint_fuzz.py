"""Mutates checkpoints, bytes and structure, and checks what reading them does.

``python tests/support/checkpoint_fuzz.py --seconds 3600`` for an hour of it; what is found lies in
``--keep``. Every file must be refused by a `CheckpointError`, or give what ``torch.load`` with
``weights_only=True`` (or the safetensors library) gives; within 60 s and 1.5 GB, nothing written.
"""

import argparse
import io
import json
import pickletools
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import safetensors.torch
import torch

from acon_analysis.models.checkpoints import CheckpointError, load_state_dict
from checkpoint_files import net, saved, state

MOST_SECONDS = 60
MOST_BYTES = 1.5e9
NUMBERS = (
    0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63,
)  # fmt: skip
TEXTS = (
    b"\x00", b"..", b"/", b"\xff\xfe", b"=", b"\xe2\x80\xae", b"A" * 600, b"os\nsystem\n", b"{",
    b'"',
)  # fmt: skip

Mutator = Callable[[bytes, random.Random], bytes]


def bases() -> dict[str, tuple[str, bytes]]:
    """Return sound files by name, each with the ending that it has."""
    own = state()
    training = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in own.items()}, "lr": 0.5}
    wide = {k: v.double() if v.is_floating_point() else v for k, v in own.items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in own.items()}
    return {
        "zip": (".pth", saved(own)),
        "zip of a training": (".pt", saved(training)),
        "zip of halves": (".pt", saved(half)),
        "legacy": (".pth", saved(own, legacy=True)),
        "legacy of a training": (".tar", saved(training, legacy=True)),
        "safetensors": (".safetensors", safetensors.torch.save(own)),
        "safetensors of doubles": (".safetensors", safetensors.torch.save(wide, {"a": "b"})),
    }


def position(raw: bytes | bytearray, chance: random.Random) -> int:
    """Return a place in a file, near one of its ends more often than not."""
    size = max(len(raw), 1)
    near = min(size, 2 ** chance.randint(3, 11))
    return chance.choice(
        [chance.randrange(size), chance.randrange(near), size - 1 - chance.randrange(near)]
    )


def of_bytes(raw: bytes, chance: random.Random) -> bytes:
    """Change some bytes: flipped, overwritten, taken out, doubled, exchanged, cut."""
    made = bytearray(raw)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at, length = position(made, chance), 2 ** chance.randint(0, 8)
        kind = chance.randrange(8)
        if kind == 0 and made:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and made:
            made[at] = chance.choice([0, 1, 0x2E, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif kind == 2:
            code = chance.choice(["<H", "<I", "<Q", ">I"])
            width = struct.calcsize(code)
            made[at : at + width] = struct.pack(code, chance.choice(NUMBERS) % 256**width)
        elif kind == 3:
            del made[at : at + length]
        elif kind == 4:
            made[at:at] = made[at : at + length]
        elif kind == 5:
            other = position(made, chance)
            made[at : at + length] = made[other : other + length]
        elif kind == 6:
            made[at:at] = chance.choice(TEXTS)
        else:
            del made[at:]
    return bytes(made)


def of_pickle(raw: bytes, chance: random.Random) -> bytes:
    """Change a pickle's instructions: left out, doubled, exchanged, with other arguments."""
    try:
        starts = [at for _, _, at in pickletools.genops(raw) if at is not None]
    except Exception:
        return of_bytes(raw, chance)
    parts = [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    for _ in range(chance.choice([1, 1, 2, 5])):
        at, kind = chance.randrange(len(parts)), chance.randrange(6)
        if kind == 0:
            parts[at] = b""
        elif kind == 1:
            parts[at] *= 2
        elif kind == 2:
            other = chance.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3 and parts[at]:
            parts[at] = parts[at][:1] + of_bytes(parts[at][1:], chance)
        elif kind == 4:
            number = struct.pack("<I", chance.choice(NUMBERS) % 2**32)
            parts[at] = chance.choice(
                [b"J" + number, b"K" + number[:1], b"M" + number[:2], b"N", b"\x88"]
            )
        else:
            parts[at] = parts[chance.randrange(len(parts))]
    return b"".join(parts)


def of_zip(raw: bytes, chance: random.Random) -> bytes:
    """Change the entries of an archive: names, contents, order, compression, number."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return of_bytes(raw, chance)
    for _ in range(chance.choice([1, 1, 2])):
        at = chance.choice([0, chance.randrange(len(entries))])
        name, content = entries[at]
        kind = chance.randrange(7)
        if kind <= 2:
            change = of_pickle if name.endswith("data.pkl") else of_bytes
            entries[at] = name, change(content, chance)
        elif kind == 3:
            new = of_bytes(name.encode(), chance).decode("latin-1")
            entries[at] = chance.choice([new, f"../{name}", name.upper(), f"/{name}"]), content
        elif kind == 4 and len(entries) > 1:
            del entries[at]
        elif kind == 5:
            entries.append(entries[at])
        else:
            chance.shuffle(entries)
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        method = chance.choice([zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED])
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name or "x"), content, compress_type=method)
    return stream.getvalue()


def of_header(raw: bytes, chance: random.Random) -> bytes:
    """Change the header of a safetensors file: values, keys, tensors, its length."""
    length = int.from_bytes(raw[:8], "little")
    try:
        header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    except ValueError:  # changed before
        return of_bytes(raw, chance)
    name = chance.choice(list(header))
    entry, kind = header[name], chance.randrange(6)
    if kind == 0:
        entry[chance.choice(list(entry))] = chance.choice(
            [None, [], {}, "F16", "x", -1, 1e3, [0, -1]]
        )
    elif kind == 1:
        header[f"{name}2"] = entry
    elif kind == 2 and isinstance(entry.get("shape"), list):
        entry["shape"] = [chance.choice(NUMBERS) for _ in entry["shape"]]
    elif kind == 3 and isinstance(entry.get("data_offsets"), list):
        entry["data_offsets"] = [
            chance.choice([*NUMBERS, *entry["data_offsets"]]) for _ in range(2)
        ]
    elif kind == 4:
        del header[name]
    text = json.dumps(header).encode()
    if kind == 5:
        old, new = chance.choice(
            [
                (b"0", b"-0"),
                (b"0", b"00"),
                (b"4", b"4.0"),
                (b"[", b"[ "),
                (b'"F', b'"\\u0046'),
                (b"0", b"1e1"),
            ]
        )
        at = chance.choice([i for i in range(len(text)) if text.startswith(old, i)] or [0])
        text = text[:at] + text[at:].replace(old, new, 1)
    declared = chance.choice([len(text)] * 8 + [len(text) - 1, len(text) + 1, *NUMBERS])
    return struct.pack("<Q", declared) + text + data


STRUCTURE: dict[str, Mutator] = {"zip": of_zip, "legacy": of_pickle, "safetensors": of_header}


def mutants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield endings and contents of mutated files without end."""
    chance, sound = random.Random(seed), list(bases().items())
    while True:
        name, (ending, raw) = chance.choice(sound)
        structure = STRUCTURE[name.partition(" ")[0]]
        ways: list[list[Mutator]] = [[of_bytes], [structure], [structure], [structure, of_bytes]]
        for change in chance.choice(ways):
            raw = change(raw, chance)
        yield chance.choice([ending] * 20 + [".bin", ".safetensors"]), raw


def check(path: Path) -> str:
    """Read a file; return "refused", "accepted" or what is wrong."""
    began = time.monotonic()
    signal.alarm(2 * MOST_SECONDS)
    try:
        found = load_state_dict(path, net()).state
    except CheckpointError as error:
        text = str(error)
        result = "refused" if "\n" not in text and text.isprintable() else f"says {text!r}"
    except Exception as error:
        result = f"raises {type(error).__name__}: {error}"
    else:
        result = "accepted" if any(same(found, given) for given in expected(path)) else "differs"
    finally:
        signal.alarm(0)
    if time.monotonic() - began > MOST_SECONDS:
        return f"takes {time.monotonic() - began:.0f} s"
    return result


def expected(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the state dicts that the reference readers find in a file."""
    try:
        yield safetensors.torch.load(path.read_bytes())
        return
    except Exception:
        pass
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return
    if isinstance(loaded, dict):
        yield from (given for given in (loaded, *loaded.values()) if isinstance(given, dict))


def same(found: dict[str, torch.Tensor], given: dict[str, Any]) -> bool:
    """Whether a state dict is another one, up to prefixes and number types."""
    plain = {
        str(name).removeprefix("module.").removeprefix("model."): v for name, v in given.items()
    }
    return all(
        (name.endswith("num_batches_tracked") and name not in plain and value == 0)
        or (isinstance(plain.get(name), torch.Tensor) and torch.equal(plain[name].to(value), value))
        for name, value in found.items()
    )


def peak() -> float:
    """Return the most memory that this process or one of its children had, in bytes."""
    # The mark of this program alone: its own ru_maxrss would begin with what its parent used.
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024.0


def too_long(signum: int, frame: FrameType | None) -> None:
    """End what takes far too long."""
    raise TimeoutError("no end after two minutes")


def fuzz(seconds: float, seed: int, folder: Path, cache: Path) -> tuple[Counter[str], list[str]]:
    """Check mutants for some seconds in an empty folder; return counts and what was found."""
    signal.signal(signal.SIGALRM, too_long)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    end = time.monotonic() + seconds
    for number, (ending, raw) in enumerate(mutants(seed)):
        if time.monotonic() > end:
            break
        path = folder / f"f{ending}"
        path.write_bytes(raw)
        result = check(path)
        if [file.name for file in folder.iterdir()] != [path.name] or path.read_bytes() != raw:
            result = "writes"
        if any(file.suffix not in (".json", ".safetensors") for file in cache.glob("*/*")):
            result = "leaves temporary files"
        path.unlink()
        counts[result.split()[0]] += 1
        if result not in ("refused", "accepted"):
            problems.append(f"seed {seed} number {number}{ending}: {result}")
            (cache.parent / f"{seed}-{number}{ending}").write_bytes(raw)
    if peak() > MOST_BYTES:
        problems.append(f"took {peak() / 1e9:.2f} GB")
    return counts, problems


def main() -> None:
    """Fuzz for as long as asked; print what was found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "acon-fuzz")
    options = parser.parse_args()
    import os

    cache = options.keep / f"cache{options.seed}"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["ACON_CACHE"] = str(cache)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = fuzz(options.seconds, options.seed, Path(folder), cache)
    sys.stdout.write("\n".join([f"{counts.total()} files: {dict(counts)}", *problems]) + "\n")
    sys.stdout.write(f"peak {peak() / 1e9:.2f} GB\n")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
