"""Reads checkpoints that others made, as if every one of them were hostile."""

from acon_analysis.models.checkpoints.errors import CheckpointError
from acon_analysis.models.checkpoints.importing import ImportResult, import_checkpoint
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.loading import CheckpointResult, load_state_dict, load_weights

__all__ = [
    "CheckpointError", "CheckpointResult", "ImportResult", "Limits", "import_checkpoint",
    "load_state_dict", "load_weights",
]  # fmt: skip
