"""How the shipped networks are trained, in numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD, the learning rate falling linearly to 0, step by step.

    ``weight_decay`` acts on convolution and linear weights only. Images are moved by up to
    ``shift`` pixels in both directions (zeros come in) and, with ``flip``, mirrored half of the
    time. ``decay_all`` is the mistake that public reports describe: decay on p1, p2, beta, biases
    and normalisation, too.
    """

    epochs: int = 40
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    shift: int = 1
    flip: bool = False
    decay_all: bool = False


#: The recipe of every data set that networks are trained on here. The digits have few images, so
#: they see more epochs; handwriting is never mirrored.
RECIPES = {
    "digits": Recipe(epochs=30, batch_size=64, lr=0.1, shift=1),
    "cifar10": Recipe(epochs=15, batch_size=128, lr=0.1, shift=4, flip=True),
}
