"""All that touches a live model: find its layers, read β, prove each reading.

======================== ==============================================================
`find_layers`            which layers can be read, found by structure
`record`                 β of every forward pass inside a context, as a DataFrame
`prove`                  the proof of every reading on one batch, as a DataFrame
`Tap`, `to_host`         the same one level lower: tensors on the device, batch by batch
`nonlinearities`         the census: every operator linear, nonlinear or unknown
`capture`, `run_units`   a network over a data set, written to disk; given units as a task
`explain`, `conductance` which pixels decide β; which channels matter for the answer
`block_linearity`        how linear any module is, and the whole network
`linearize`, `fit_units` units replaced by straight lines; `verify_plan`, `fold_lines`
`replace`                a copy with cheaper activations, fitted without training
`gate_use`               whether the network uses what its gates decide for each sample
======================== ==============================================================
"""

from acon_hooks.blocks.measuring import block_linearity
from acon_hooks.captures.capturing import capture, run_units
from acon_hooks.census.counting import nonlinearities
from acon_hooks.errors import BlockWarning, HookError, ProofError, UnusedLayerWarning
from acon_hooks.explainers.explaining import explain
from acon_hooks.explainers.importance import conductance
from acon_hooks.layers.reading import Reading
from acon_hooks.layers.scan import KINDS, Layer
from acon_hooks.moments.recording import Recording, record
from acon_hooks.readings.batch import Batch, to_host
from acon_hooks.readings.found_layers import find_layers
from acon_hooks.readings.proof import ProofReport
from acon_hooks.readings.proving import prove
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.folding import fold_lines
from acon_hooks.replacement.gate_changes import gate_use
from acon_hooks.replacement.linearizing import linearize, load_linearized, save_linearized
from acon_hooks.replacement.plan import load_plan
from acon_hooks.replacement.replace import replace
from acon_hooks.replacement.verifying import verify_plan

__all__ = [
    "KINDS", "Batch", "BlockWarning", "HookError", "Layer", "ProofError", "ProofReport", "Reading",
    "Recording", "Tap", "UnusedLayerWarning", "block_linearity", "capture", "conductance",
    "explain", "find_layers", "fit_units", "fold_lines", "gate_use", "linearize", "load_linearized",
    "load_plan", "nonlinearities", "prove", "record", "replace", "run_units", "save_linearized",
    "to_host", "verify_plan",
]  # fmt: skip
