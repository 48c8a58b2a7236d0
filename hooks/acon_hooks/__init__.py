"""All that touches a live model: find its layers, read β, prove each reading.

======================== ==============================================================
`find_layers`            which layers can be read, found by structure
`record`                 β of every forward pass inside a context, as a DataFrame
`prove`                  the proof of every reading on one batch, as a DataFrame
`Tap`, `to_host`         the same one level lower: tensors on the device, batch by batch
`functional_activations` activations called as functions, which hooks cannot reach
======================== ==============================================================
"""

from acon_hooks.batch import Batch, to_host
from acon_hooks.errors import HookError, ProofError, UnusedLayerWarning
from acon_hooks.finding import KINDS, Layer, find_layers
from acon_hooks.functional import functional_activations
from acon_hooks.proof import ProofReport
from acon_hooks.reading import Reading, fold
from acon_hooks.recording import Recording, prove, record
from acon_hooks.tap import Tap

__all__ = [
    "KINDS",
    "Batch",
    "HookError",
    "Layer",
    "ProofError",
    "ProofReport",
    "Reading",
    "Recording",
    "Tap",
    "UnusedLayerWarning",
    "find_layers",
    "fold",
    "functional_activations",
    "prove",
    "record",
    "to_host",
]
