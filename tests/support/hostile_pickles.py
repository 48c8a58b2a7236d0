"""Hostile checkpoints whose pickle is the weapon: code and bombs."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

from checkpoint_files import (
    MAGIC,
    PROTOCOL,
    hostile,
    integer,
    legacy,
    net,
    of_bytes,
    saved,
    sizes,
    state,
    storage,
    text,
    torch_zip,
    zipped,
)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def touch(canary: Path) -> Call:
    return Call(os.system, f"touch '{canary}'")


@hostile("posix.system.*can run code")
def reduce_in_the_list_of_keys(path: Path, canary: Path) -> None:
    whole = legacy(pickle.dumps({}, protocol=2))
    path.write_bytes(whole[: -len(pickle.dumps([], 2))] + pickle.dumps([touch(canary)], 2))


@hostile("instruction STACK_GLOBAL")
def stack_global_in_protocol_two(path: Path, canary: Path) -> None:
    call = text("os") + text("system") + b"\x93" + text(f"touch '{canary}'") + b"\x85R"
    path.write_bytes(torch_zip(b"\x80\x02" + call + b"."))


@hostile("set the state of")
def build_over_methods(path: Path, canary: Path) -> None:
    shadow = b"}" + text("items") + text(f"touch '{canary}'") + b"s"
    path.write_bytes(torch_zip(b"\x80\x02ccollections\nOrderedDict\n)R" + shadow + b"b."))


@hostile("os.system.*can run code")
def build_with_setstate(path: Path, canary: Path) -> None:
    shadow = b"}" + text("__setstate__") + b"cos\nsystem\nsb" + text(f"touch '{canary}'")
    path.write_bytes(torch_zip(b"\x80\x02cargparse\nNamespace\n)\x81" + shadow + b"b."))


@hostile("__builtin__.getattr.*can run code")
def getattr_chain(path: Path, canary: Path) -> None:
    chain = Call(getattr, Call(__import__, "os"), "system")
    path.write_bytes(torch_zip(pickle.dumps([chain, touch(canary)], protocol=2)))


@hostile("builtins.exec.*can run code")
def execution(path: Path, canary: Path) -> None:
    command = f"open({str(canary)!r}, 'w')"
    path.write_bytes(torch_zip(b"\x80\x02cbuiltins\nexec\n" + text(command) + b"\x85R."))


@hostile("torch.hub.load")
def code_in_torch_itself(path: Path, canary: Path) -> None:
    call = b"ctorch\nhub.load\n" + text(str(canary.parent)) + b"\x85R"
    path.write_bytes(torch_zip(b"\x80\x02" + call + b"."))


@hostile("outside its pickle that is no tensor data")
def persistent_module(path: Path, canary: Path) -> None:
    module = b"(" + text("module") + text("os") + text("f") + text("source") + b"tQ"
    path.write_bytes(legacy(b"\x80\x02" + module + b"."))


@hostile("tar archive")
def legacy_tar(path: Path, canary: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(touch(canary), protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@hostile("also a tar archive")
def legacy_and_tar(path: Path, canary: Path) -> None:
    member = tarfile.TarInfo("x")
    raw = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    raw[: len(MAGIC)] = MAGIC
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    path.write_bytes(bytes(raw) + pickle.dumps(touch(canary), protocol=2))


@hostile("TorchScript archive, which holds code")
def torchscript(path: Path, canary: Path) -> None:
    code = {"data.pkl": b"\x80\x02}.", "constants.pkl": b"", "code/__torch__.py": b"pass"}
    path.write_bytes(zipped(code))


# Bombs: small files that want much memory or time.


@hostile("instruction LONG4")
def long_number(path: Path, canary: Path) -> None:
    count = 2**20
    path.write_bytes(
        torch_zip(b"\x80\x02\x8b" + count.to_bytes(4, "little") + b"\x7f" * count + b".")
    )


@hostile("key of type tuple")
def hash_that_never_ends(path: Path, canary: Path) -> None:
    doubled = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    path.write_bytes(torch_zip(b"\x80\x02})" + doubled + b"Ns."))


@hostile("shape is not made of sizes")
def text_that_never_ends(path: Path, canary: Path) -> None:
    doubled = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    call = b"ctorch._utils\n_rebuild_tensor\n(" + storage() + integer(0) + doubled + b")tR"
    path.write_bytes(torch_zip(b"\x80\x02" + call + b".", {"0": bytes(4)}))


@hostile("no state dict")
def tuples_that_double(path: Path, canary: Path) -> None:
    doubled = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(30))
    path.write_bytes(torch_zip(b"\x80\x02}" + text("state_dict") + doubled + b"s."))


@hostile("something else than latin-1")
def other_codec(path: Path, canary: Path) -> None:
    call = b"c_codecs\nencode\n" + text("x") + text("unicode_escape") + b"\x86R"
    path.write_bytes(torch_zip(b"\x80\x02" + call + b"."))


@hostile("more than 60,000 tensors")
def many_tensors(path: Path, canary: Path) -> None:
    function = b"ctorch._utils\n_rebuild_tensor\nq\x00"
    arguments = b"(" + storage() + integer(0) + sizes(1) + sizes(1) + b"tq\x01"
    calls = function + arguments + b"R" + b"h\x00h\x01R" * 60_000
    path.write_bytes(torch_zip(b"\x80\x02(" + calls + b"t.", {"0": bytes(4)}))


of_bytes({
    "reduce_in_zip": ("posix.system.*can run code",
        lambda canary: torch_zip(pickle.dumps(touch(canary), protocol=2))),
    "reduce_beside_a_good_state": ("posix.system.*can run code",
        lambda canary: saved({"state_dict": state(), "optimizer": touch(canary)})),
    "reduce_in_legacy": ("posix.system.*can run code",
        lambda canary: saved({"state_dict": state(), "z": touch(canary)}, legacy=True)),
    "reduce_in_the_system_record": ("posix.system.*can run code",
        lambda canary: MAGIC + PROTOCOL + pickle.dumps(touch(canary), protocol=2)),
    "stack_global": ("protocol 4, expected torch's protocol 2",
        lambda canary: torch_zip(pickle.dumps(touch(canary), protocol=4))),
    "protocol_zero": ("does not begin as torch begins",
        lambda canary: torch_zip(pickle.dumps(touch(canary), protocol=0))),
    "bare_pickle": ("a pickle, but not one that `torch.save` wrote",
        lambda canary: pickle.dumps(touch(canary), protocol=2)),
    "inst": ("instruction INST",
        lambda canary: torch_zip(b"\x80\x02(" + text(f"touch '{canary}'") + b"ios\nsystem\n.")),
    "obj": ("os.system.*can run code",
        lambda canary: torch_zip(b"\x80\x02(cos\nsystem\n" + text(f"touch '{canary}'") + b"o.")),
    "evaluation": ("__builtin__.eval.*can run code",
        lambda canary: torch_zip(pickle.dumps(Call(eval, f"open({str(canary)!r}, 'w')"), 2))),
    "extension_registry": ("instruction EXT1", lambda _: torch_zip(b"\x80\x02\x82\x01.")),
    "persistent_text": ("instruction PERSID", lambda _: torch_zip(b"\x80\x02Pmodule\n.")),
    "whole_model": ("a whole pickled model; save `model.state_dict", lambda _: saved(net())),
    "object_of_a_script": ("object of the script",
        lambda _: torch_zip(b"\x80\x02c__main__\nNet\n)\x81.")),
    "bytearray_call": ("__builtin__.bytearray",
        lambda _: torch_zip(b"\x80\x02c__builtin__\nbytearray\n" + integer(10**10) + b"\x85R.")),
    "bytearray_call_legacy": ("builtins.bytearray",
        lambda _: legacy(b"\x80\x02cbuiltins\nbytearray\n" + integer(10**10) + b"\x85R.")),
    "bytearray_instruction": ("pickle is damaged|BYTEARRAY8",
        lambda _: torch_zip(b"\x80\x02\x96" + (10**12).to_bytes(8, "little") + b"x.")),
    "bytes_instruction": ("instruction BINBYTES8|pickle is damaged",
        lambda _: torch_zip(b"\x80\x02\x8e" + (10**12).to_bytes(8, "little") + b"x.")),
    "long_number_as_text": ("pickle is damaged",
        lambda _: torch_zip(b"\x80\x02L" + b"9" * 2**20 + b"L\n.")),
    "memo_index": ("numbers an object", lambda _: torch_zip(b"\x80\x02]r\xff\xff\xff\xff.")),
    "many_instructions": ("more than 500,000 pickle instructions",
        lambda _: torch_zip(b"\x80\x02](" + b"]" * 500_000 + b"e.")),
    "deep_lists": ("nested more than 32 deep",
        lambda _: torch_zip(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")),
    "deep_marks": ("nested more than 64 deep",
        lambda _: legacy(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".")),
    "text_of_four_gigabytes": ("pickle is damaged",
        lambda _: legacy(b"\x80\x02X\xff\xff\xff\xffabc.")),
    "global_without_end": ("pickle is damaged", lambda _: torch_zip(b"\x80\x02c" + b"a" * 2**20)),
    "two_objects": ("leaves more or less than one object", lambda _: torch_zip(b"\x80\x02}}.")),
    "second_pickle": ("something follows its pickle",
        lambda canary: torch_zip(b"\x80\x02}." + pickle.dumps(touch(canary), protocol=2))),
})  # fmt: skip
