"""Trains the small networks by the official recipe's rules, resumable at any epoch.

The rules (official code of Ma et al. 2021): SGD with momentum 0.9, learning rate falling linearly
to 0, weight decay on the weights of convolutions and linear layers only: p1, p2, beta, biases and
normalisation are free.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from acon_analysis.columns import CURVE_COLUMNS, dtypes, names
from acon_analysis.data.image_source import ImageSource
from acon_analysis.errors import AconError, UsageError
from acon_analysis.files import atomic_write, store_errors, temporary_folder
from acon_analysis.models.checkpoints.limits import DEFAULT_LIMITS
from acon_analysis.models.checkpoints.loading import examine
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.screen import counted
from acon_analysis.training.recipes import Recipe


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Split the parameters into those with and those without weight decay."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_weight = name.endswith("weight") and parameter.ndim > 1
        (decayed if is_weight or recipe.decay_all else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def augment(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Shift and mirror a batch (N, C, H, W); a new tensor."""
    count, _, height, width = images.shape
    if recipe.shift:
        shift = recipe.shift
        padded = F.pad(images, (shift, shift, shift, shift))
        top = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)
        left = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)
        rows = (top + torch.arange(height))[:, None, :, None]
        columns = (left + torch.arange(width))[:, None, None, :]
        batch = torch.arange(count)[:, None, None, None]
        channel = torch.arange(images.shape[1])[None, :, None, None]
        images = padded[batch, channel, rows, columns]
    if recipe.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


@dataclass
class Training:
    """A training run: call `run`, read `curves`.

    The model is trained in place; ``train`` and ``test`` have labels; ``test`` is only evaluated
    on. ``seed`` is that of the order and augmentation of the images: each epoch draws from its own
    generator, so a resumed run equals an uninterrupted one. ``state`` is a file that keeps the
    state after every epoch; an existing one of the same training and ``network`` is continued.
    """

    model: nn.Module
    train: ImageSource
    test: ImageSource
    recipe: Recipe
    seed: int = 0
    state: Path | None = None
    network: str = ""

    def __post_init__(self) -> None:
        for source in (self.train, self.test):
            if source.targets is None:
                raise UsageError(f"training needs labels; {source.name!r} has none")
        self.epoch = 0
        self.rows: list[list[float]] = []
        self._optimizer = torch.optim.SGD(
            parameter_groups(self.model, self.recipe),
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
        )
        # Several times faster on a CPU for convolutions with few channels.
        self.model.to(memory_format=torch.channels_last)
        self._images, self._targets = _stack(self.train)
        self._test_images, self._test_targets = _stack(self.test)
        self._steps = -(-len(self._images) // self.recipe.batch_size)
        if self.state is not None and self.state.exists():
            self._resume(self.state)

    @property
    def curves(self) -> pd.DataFrame:
        """Loss and error after every epoch, columns of `columns.CURVE_COLUMNS`."""
        frame = pd.DataFrame(self.rows, columns=names(CURVE_COLUMNS))
        return frame.astype(dtypes(CURVE_COLUMNS))

    def run(self, progress: bool = True) -> Iterator[int]:
        """Train to the end; yield the number of finished epochs after each one."""
        with tqdm(
            total=self.recipe.epochs, initial=self.epoch, unit="epoch", disable=not progress
        ) as bar:
            while self.epoch < self.recipe.epochs:
                loss, error = self._train_epoch()
                self.epoch += 1
                test_loss, test_error = self.evaluate()
                step = self.epoch * self._steps
                rate = self._rate(step - 1)
                self.rows.append([self.epoch, step, rate, loss, error, test_loss, test_error])
                self._save()
                bar.update()
                bar.set_postfix(train=f"{error:.3f}", test=f"{test_error:.3f}")
                yield self.epoch

    def evaluate(self, batch_size: int = 500) -> tuple[float, float]:
        """Return mean cross-entropy and share of wrong answers on the test split."""
        self.model.eval()
        loss, wrong = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(self._test_images), batch_size):
                part = slice(start, start + batch_size)
                logits = self.model(self._test_images[part])
                target = self._test_targets[part]
                loss += float(F.cross_entropy(logits, target, reduction="sum"))
                wrong += int((logits.argmax(1) != target).sum())
        return loss / len(self._test_images), wrong / len(self._test_images)

    def _rate(self, step: int) -> float:
        return self.recipe.lr * (1 - step / (self.recipe.epochs * self._steps))

    def _train_epoch(self) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self._images), generator=generator)
        self.model.train()
        loss_sum, wrong = 0.0, 0
        parts = torch.split(order, self.recipe.batch_size)
        for step, part in enumerate(parts, start=self.epoch * self._steps):
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate(step)
            images = augment(self._images[part], self.recipe, generator)
            images = images.contiguous(memory_format=torch.channels_last)
            logits = self.model(images)
            target = self._targets[part]
            loss = F.cross_entropy(logits, target, label_smoothing=self.recipe.label_smoothing)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            loss_sum += float(loss.detach()) * len(part)
            wrong += int((logits.argmax(1) != target).sum())
        if not np.isfinite(loss_sum):
            raise AconError(
                f"training diverged in epoch {self.epoch + 1}: the loss is {loss_sum}; "
                f"try a smaller learning rate than {self.recipe.lr}"
            )
        return loss_sum / len(order), wrong / len(order)

    def _identity(self) -> dict[str, Any]:
        """Return what a state must agree with; a copy as JSON makes it."""
        named = {"network": self.network} if self.network else {}
        identity = {
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "train": self.train.identity(),
            "test": self.test.identity(),
        }
        return dict(json.loads(json.dumps(identity | named)))

    def _save(self) -> None:
        if self.state is None:
            return
        content = {
            "identity": json.dumps(self._identity(), sort_keys=True),
            "epoch": self.epoch,
            "rows": self.rows,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with store_errors(f"writing {str(self.state)!r}"):
            atomic_write(self.state, lambda file: torch.save(content, file))

    def _resume(self, state: Path) -> None:
        try:
            with temporary_folder() as folder, Source(state, DEFAULT_LIMITS) as given:
                copy = given.copy_to(folder / state.name)  # which nobody can exchange
                with Source(copy, DEFAULT_LIMITS) as source:
                    examine(source, DEFAULT_LIMITS)
                content = torch.load(copy, map_location="cpu", weights_only=True)
            _require_form(content)
            old, new = json.loads(content["identity"]), self._identity()
            old.setdefault("network", new.get("network"))  # without a name it agrees with any
            new.setdefault("network", old["network"])
            found = _difference(old, new) or _other_tensors(
                content["model"], self.model.state_dict()
            )
            if not found:
                optimizer = self._optimizer_state(content["optimizer"])
                _require_rows(content["epoch"], content["rows"], self.recipe.epochs)
        except UsageError:  # of the temporary folder
            raise
        except Exception as error:  # torch raises nearly everything on damaged files
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"{str(state)!r} is damaged, or no state of a training ({why[:200]}); delete it "
                "or choose another --out"
            ) from error
        if found:
            raise UsageError(
                f"{str(state)!r} holds the state of another training: {found}; "
                f"delete it or choose another --out"
            )
        self.model.load_state_dict(content["model"])
        self._optimizer.load_state_dict(optimizer)
        self.epoch, self.rows = content["epoch"], content["rows"]

    def _optimizer_state(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return the kept momentum with the recipe's own settings; ValueError if it is none."""
        own = self._optimizer.state_dict()
        parameters = [value for group in self._optimizer.param_groups for value in group["params"]]
        for index, buffers in kept["state"].items():
            buffer = buffers["momentum_buffer"]
            if buffer is not None and (
                buffer.shape != parameters[index].shape or not buffer.isfinite().all()
            ):
                raise ValueError(f"the momentum of parameter {index} does not fit")
        return {**own, "state": kept["state"]}


def _require_form(content: Any) -> None:
    """Raise ValueError unless a training state has the parts that `Training` writes."""
    parts = {"identity": str, "epoch": int, "rows": list, "model": dict, "optimizer": dict}
    for name, kind in parts.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise ValueError(f"it has no {name!r}")
    if not isinstance(json.loads(content["identity"]).get("recipe"), dict):
        raise ValueError("its 'identity' names no recipe")
    for name, value in content["model"].items():
        if not isinstance(value, torch.Tensor) or not value.isfinite().all():
            raise ValueError(f"{name!r} of its 'model' is no tensor of finite numbers")


def _require_rows(epoch: int, rows: list[Any], epochs: int) -> None:
    """Raise ValueError unless a state's curves have one row of numbers for each finished epoch."""
    if isinstance(epoch, bool) or not 0 <= epoch <= epochs or len(rows) != epoch:
        raise ValueError(
            f"it has epoch {epoch} of {epochs} and {counted(len(rows), 'row')} of curves"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(CURVE_COLUMNS) or row[0] != number or not np.isfinite(row).all():
            raise ValueError(f"row {number} of its curves is {row!r:.100}")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    flat_old = {**old.pop("recipe"), **old}
    flat_new = {**new.pop("recipe"), **new}
    return ", ".join(
        f"{key} was {flat_old.get(key)!r}, is {flat_new.get(key)!r}"
        for key in sorted(flat_old | flat_new)
        if flat_old.get(key) != flat_new.get(key)
    )


def _other_tensors(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> str:
    """Return the first tensor that two networks do not share, in words; empty if they fit."""
    for name in sorted(old.keys() | new.keys()):
        was, now = (_form(own[name]) if name in own else "no such tensor" for own in (old, new))
        if was != now:
            return f"the network differs: {name!r} is {was} in it, {now} in this one"
    return ""


def _form(value: torch.Tensor) -> str:
    """Return a tensor's shape and type in words."""
    return f"shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"


def _stack(source: ImageSource) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([source[index] for index in range(len(source))])
    return images, torch.as_tensor(source.targets)
