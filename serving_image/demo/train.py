"""Trains one of the bundled detectors on the CPU; the same seed gives the same weights."""

# Torch is not read by mypy (see pyproject.toml), so its classes and decorators have no types.
# mypy: disallow-untyped-decorators=False

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from demo.dataset import Batch, Sample, batches, dense_sample, drawn, plain_sample
from demo.loss import detection_loss
from demo.models import MODELS, Model
from demo.network import Network

WARM_UP = 100  # steps
MEMORY = 0.997  # share of the averaged weights that stays at each step
REPORT_EVERY = 100  # steps


def train(name: str, folder: Path) -> Path:
    """Train the detector `name` and write its averaged weights to `folder`."""
    model = MODELS[name]
    torch.manual_seed(model.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the same sums in the same order anywhere; train both side by side
    began = time.monotonic()
    dense, plain = drawn(dense_sample, model.dense.drawn), drawn(plain_sample, model.plain.drawn)
    print(f"{name}: drew all pictures in {time.monotonic() - began:.0f} s", flush=True)
    weights = optimise(model, dense, plain).state_dict()
    print(f"{name}: trained in {(time.monotonic() - began) / 60:.1f} min", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    torch.save(weights, path)
    return path


def optimise(model: Model, dense: list[Sample], plain: list[Sample]) -> Network:
    """Run both stages; return the network with its weights averaged over the last steps."""
    network = model.network().to(memory_format=torch.channels_last).train()
    averaged: Network = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(parameter_groups(network), lr=model.rate)
    steps = model.dense.shown // model.batch + model.plain.shown // model.batch
    losses: list[float] = []
    began = time.monotonic()
    for step, batch in enumerate(all_batches(model, dense, plain)):
        for group in optimiser.param_groups:
            group["lr"] = model.rate * pace(step, steps)
        loss = detection_loss(network(pictures(batch)), *objects(batch))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        follow(averaged, network, min(MEMORY, (1 + step) / (10 + step)))
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0:
            recent = np.mean(losses[-REPORT_EVERY:])
            spent = time.monotonic() - began
            print(f"step {step + 1}/{steps} loss {recent:.3f} {spent:.0f} s", flush=True)
    return averaged


def all_batches(model: Model, dense: list[Sample], plain: list[Sample]) -> Iterator[Batch]:
    """Yield the batches of one stage after the other."""
    rng = np.random.default_rng(model.seed)
    yield from batches(dense, rng, model.dense.shown, model.batch)
    yield from batches(plain, rng, model.plain.shown, model.batch)


def pace(step: int, steps: int) -> float:
    """Return the share of the learning rate: a short climb, then half a cosine down to 1 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def parameter_groups(network: Network) -> list[dict[str, object]]:
    """Separate what may decay from biases and normalisations, which may not."""
    decays = [value for value in network.parameters() if value.ndim > 1]
    stays = [value for value in network.parameters() if value.ndim <= 1]
    return [{"params": decays, "weight_decay": 0.02}, {"params": stays, "weight_decay": 0.0}]


def pictures(batch: Batch) -> Tensor:
    """Return the network's input: (B, 3, H, W), 0..1."""
    images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
    return images.to(torch.float32, memory_format=torch.channels_last) / 255


def objects(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the loss compares with: classes, boxes, and which of them are real."""
    return (
        torch.from_numpy(batch.classes),
        torch.from_numpy(batch.boxes),
        torch.from_numpy(batch.known),
    )


@torch.no_grad()
def follow(averaged: Network, network: Network, memory: float) -> None:
    """Move the averaged weights a step towards the network's."""
    ours, theirs = averaged.state_dict(), network.state_dict()
    for key, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[key], 1 - memory)
        else:
            value.copy_(theirs[key])
