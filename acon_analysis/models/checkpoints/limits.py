"""How large a checkpoint may be before it is refused unread."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The caps of the gate and of the reading process.

    Parameters
    ----------
    file_bytes : int
        Largest file (bytes). Below 4 GiB, so that no zip archive needs 64-bit sizes.
    legacy_bytes : int
        Largest file (bytes) in torch's format from before 1.6, which cannot be memory-mapped and
        is therefore read as a whole.
    pickle_bytes : int
        Largest pickled part (bytes): names, shapes and numbers, not the weights.
    opcodes : int
        Most pickle instructions.
    depth : int
        Deepest nesting of containers.
    tensors : int
        Most tensors, and most entries of a zip archive.
    name_length : int
        Longest key (characters).
    header_bytes : int
        Largest header of a safetensors file (bytes).
    seconds : int
        Longest time (wall clock and processor, seconds) of the reading process.
    slack_bytes : int
        Address space (bytes) of the reading process beyond what file and result need.
    """

    file_bytes: int = 2**32 - 2**20
    legacy_bytes: int = 512 * 2**20
    pickle_bytes: int = 32 * 2**20
    opcodes: int = 500_000
    depth: int = 32
    tensors: int = 60_000
    name_length: int = 512
    header_bytes: int = 8 * 2**20
    seconds: int = 300
    slack_bytes: int = 256 * 2**20


DEFAULT_LIMITS = Limits()
