"""What can go wrong while a model is watched, each in one readable sentence."""

from acon_analysis.errors import AconError, UsageError


class HookError(AconError):
    """The model cannot be watched, or was not watched completely."""


class ProofError(AconError):
    """A reading of β does not explain the layer's output; it yields no rows."""


class NoImagesError(UsageError):
    """The images that were given are none."""


class UnusedDataWarning(UserWarning):
    """The data hold more than a network is given."""


class TargetWarning(UserWarning):
    """What looks like targets is given to the network."""


class SameDataWarning(UserWarning):
    """What was fitted on some samples is measured on the same ones."""


class UnusedLayerWarning(UserWarning):
    """Some of the layers found did not run in the first forward pass, or cannot be read."""


class NoLayerWarning(UserWarning):
    """No layer is found among the modules."""


class SlowerModelWarning(UserWarning):
    """While it is watched, a model runs on a slower path than it would by itself."""


class PaddingWarning(UserWarning):
    """Padded positions count like those that hold data."""


class RowWarning(UserWarning):
    """Rows of what a layer sees are not samples, or depend on the other samples of their batch."""


class BlockWarning(UserWarning):
    """A number of a block is left out, or its activations mislead about it."""
