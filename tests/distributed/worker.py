"""Run in two processes by `conftest.py`: every case that needs them. Saves what it saw; the tests judge it."""

import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pictura.distributed import gather as gathering
from pictura.distributed import ranks
from pictura.distributed.batch_norm import statistics, synchronise
from pictura.distributed.gather import gather
from pictura.distributed.wrap import accumulate, clip_scale, gradient_norm, unsharded, unwrap, wrap
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Task
from pictura.objectives.classification import ClassificationConfig
from pictura.objectives.clip import CLIPObjectiveConfig
from pictura.objectives.siglip import SigLIPObjectiveConfig
from pictura.training import precision
from pictura.training.config import TrainingConfig
from pictura.training.gradient_cache import cached_backward
from pictura.training.loop import Trainer
from pictura.training.optimizers import AdamWConfig, LARSConfig
from pictura.training.precision import Masters
from pictura.training.schedules import ConstantConfig
from tests.distributed import tasks

BATCH, END = 8, 63
LR, MAX_NORM = 0.1, 1.0
OBJECTIVES = {"clip": CLIPObjectiveConfig, "siglip": SigLIPObjectiveConfig}
CASES = [(loss, mode, cached) for loss in OBJECTIVES for mode in ("ddp", "fsdp") for cached in (False, True)]


def tiny_task(loss: str, seed: int = 0) -> Task:
    """A CLIP of two blocks a tower, in float32."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        image=ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=16),
        text=TextTransformerConfig(width=32, depth=2, heads=2, vocab_size=END + 1, context_length=8),
        embed_dim=16,
        logit_scale=2.3,
        logit_bias=-2.0 if loss == "siglip" else None,
    )
    return Task(config.build(), {loss: OBJECTIVES[loss]().build()}, {loss: 1.0})


def whole_batch() -> dict[str, Tensor]:
    """Eight pictures and captions of three to eight tokens, the same in every process."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (BATCH, 3, 16, 16), generator=generator, dtype=torch.uint8)
    text = torch.zeros(BATCH, 8, dtype=torch.int64)
    for i in range(BATCH):
        length = 3 + (i * 3) % 6
        text[i, : length - 1] = torch.randint(1, END, (length - 1,), generator=generator)
        text[i, length - 1] = END
    return {"image": image, "text": text}


def own_batch() -> dict[str, Tensor]:
    """This process's half, cut to its own longest caption."""
    share = BATCH // ranks.world()
    batch = {k: v[ranks.rank() * share : (ranks.rank() + 1) * share] for k, v in whole_batch().items()}
    return batch | {"text": batch["text"][:, : int(batch["text"].ne(0).sum(1).max())]}


def full(tensor: Tensor) -> Tensor:
    """The whole tensor behind a shard, apart from what happens to it later."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: full(p) for name, p in unwrap(module).named_parameters()}


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: full(p.grad) for name, p in unwrap(module).named_parameters() if p.grad is not None}


def clip(module: nn.Module) -> Tensor:
    norm = gradient_norm(p.grad for p in module.parameters())
    Masters(module).collect(scale=clip_scale(norm, MAX_NORM))
    return norm


def equivalence() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for loss, mode, cached in CASES:
        module = wrap(tiny_task(loss), mode)
        if cached:
            outcome = cached_backward(module, own_batch(), micro_batch=3)  # 3 does not divide 4
        else:
            outcome = module(own_batch())
            outcome.loss.backward()
        case = {"loss": ranks.mean({"loss": outcome.loss})["loss"], "gradients": gradients(module)}
        case["norm"] = clip(module)
        torch.optim.SGD(module.parameters(), lr=LR).step()
        out[f"{loss} {mode} {'cached' if cached else 'plain'}"] = case | {"after": weights(module)}
    return out


def across() -> dict[tuple[str, str, bool], Any]:
    """Metrics and gradients of this process's half of the batch of each of `tasks`."""
    out = {}
    share = tasks.BATCH // ranks.world()
    for name, mode, cached in tasks.CASES:
        module, batch = (
            wrap(tasks.built(name), mode),
            tasks.batch(slice(ranks.rank() * share, (ranks.rank() + 1) * share)),
        )
        if cached:
            outcome = cached_backward(module, batch, micro_batch=3)
        else:
            outcome = module(batch)
            outcome.loss.backward()
        out[name, mode, cached] = {"metrics": ranks.mean(outcome.metrics), "gradients": gradients(module)}
    return out


def steps(mode: str, *, bf16: bool = False, locked: bool = False) -> dict[str, Any]:
    """Three AdamW steps, from weights that differ between processes before they are wrapped."""
    task = tiny_task("clip", seed=ranks.rank())
    for name, parameter in task.named_parameters():
        parameter.requires_grad_(not (locked and name.startswith("model.image")))
    module = wrap(task, mode, bf16=bf16)
    out: dict[str, Any] = {"before": weights(module), "losses": []}
    optimizer = AdamWConfig(lr=1e-3).build((n, p) for n, p in module.named_parameters() if p.requires_grad)
    for _ in range(3):
        with torch.no_grad():  # as an evaluation between steps does
            module(own_batch())
        outcome = module(own_batch())
        outcome.loss.backward()
        out["losses"].append(ranks.mean({"loss": outcome.loss})["loss"])
        out["gradients"] = gradients(module)
        clip(module)
        optimizer.step()
        optimizer.zero_grad()
        task.settle()
    out["after"] = weights(module)
    out["sharded"] = [name for name, p in task.named_parameters() if isinstance(p, DTensor)]
    return out


def lars_steps(module: nn.Module, batch: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Three steps of LARS at different rates, long ones: weights before and after, and what it remembers."""
    before = weights(module)
    optimizer = LARSConfig(lr=1.0, weight_decay=0.01, trust=0.1).build(unwrap(module).named_parameters())
    for factor in (0.5, 1.0, 0.25):
        optimizer.schedule(factor)
        module(batch).loss.backward()
        clip(module)
        optimizer.step()
        optimizer.zero_grad()
    moments = {name: full(optimizer.moments(p)["momentum_buffer"]) for name, p in unwrap(module).named_parameters()}
    return {"before": before, "after": weights(module), "moments": moments}


def evaluation(mode: str) -> dict[str, Any]:
    """A picture embedded by the model itself: before any step, after one, and after weights were changed by hand."""
    task = tiny_task("clip")
    module = wrap(task, mode)
    held, out = list(task.parameters()), []  # as an optimiser holds them: the shards
    for change in (0.0, 0.0, 0.5):
        with torch.no_grad():
            for parameter in held:
                parameter += change
            with unsharded(module):
                out.append(task.model.encode_image(whole_batch()["image"]))
        sharded = [isinstance(p, DTensor) for p in task.parameters() if p.dim()]
        module(own_batch()).loss.backward()
        with torch.no_grad():
            task.embed(own_batch())  # leaves the root's weights whole
    return {"embedded": out, "sharded": all(sharded)}


def plain_accumulation(mode: str) -> dict[str, Tensor]:
    """Two forwards and backwards of the wrapped module, counted as one."""
    module = wrap(tiny_task("clip"), mode)
    with accumulate(module):
        for _ in range(2):
            module(own_batch()).loss.backward()
    return gradients(module)


def gathered() -> dict[str, Any]:
    r = ranks.rank()
    own = {
        "float32": torch.arange(6.0).view(3, 2) + 10 * r,
        "bfloat16": torch.full((3, 4), 0.5 + r, dtype=torch.bfloat16),
        "int64": torch.arange(3) + 100 * r,
        "bool": torch.tensor([[True, False]] * 3) ^ bool(r),
        "float64": torch.full((3, 1, 2), 1e-12 * (r + 1), dtype=torch.float64),
    }
    for x in own.values():
        x.requires_grad_(x.is_floating_point())
    calls: list[str] = []
    collectives = {name: getattr(gathering, name) for name in ("_all_gather", "_reduce_scatter")}
    for name, collective in collectives.items():
        setattr(gathering, name, lambda *a, n=name, c=collective: (calls.append(n), c(*a)))
    whole = gather(own)
    # every process weighs the whole batch differently, so the gradient it sends back is its own
    loss = sum((whole[k].double() ** 2 * (r + 1)).sum() for k in ("float32", "bfloat16", "float64"))
    loss.backward()
    for name, collective in collectives.items():
        setattr(gathering, name, collective)
    return {
        "own": {k: v.detach() for k, v in own.items()},
        "whole": {k: v.detach() for k, v in whole.items()},
        "differentiable": [k for k, v in whole.items() if v.requires_grad],
        "gradients": {k: v.grad for k, v in own.items() if v.grad is not None},
        "calls": calls,
    }


def refusals() -> dict[str, str]:
    r = ranks.rank()
    uneven = {
        "sizes": {"image": torch.zeros(3 - r, 4)},
        "names": {"image" if r else "text": torch.zeros(3, 4)},
        "dtypes": {"image": torch.zeros(3, 4, dtype=torch.float32 if r else torch.bfloat16)},
    }
    out = {}
    for name, features in uneven.items():
        try:
            gather(features)
        except ValueError as error:
            out[name] = str(error)
    return out


def trained(folder: Path, parallel: str) -> dict[str, Any]:
    """A trainer in bf16, from weights that differ between processes: what it starts from, gradients, two steps."""
    training = TrainingConfig(steps=2, parallel=parallel, recompute=True)
    trainer = Trainer(
        tiny_task("clip", seed=ranks.rank()), training, AdamWConfig(lr=1e-3), ConstantConfig(), folder / parallel
    )
    out: dict[str, Any] = {"before": {name: full(m) for name, m in trainer.masters.masters.items()}}
    out["flops"] = trainer._progress(own_batch())._flops
    for name, size in (("plain", None), ("cached", 1)):
        reduced: list[str] = []
        all_reduce = dist.all_reduce
        dist.all_reduce = lambda x, *a, n=reduced, r=all_reduce, **k: (n.append(str(x.dtype)), r(x, *a, **k))[1]
        if size is None:
            trainer.module(own_batch()).loss.backward()
        else:
            cached_backward(trainer.module, own_batch(), size, trainer.masters)
        dist.all_reduce = all_reduce
        trainer.masters.collect()
        out[name] = {k: full(m.grad) for k, m in trainer.masters.trainable()}
        out[f"{name} reduced"] = sorted({d for d in reduced if "float" in d})
        trainer.optimizer.zero_grad()
    for _ in range(2):
        trainer._advance(own_batch())
    out["after"] = {name: full(m) for name, m in trainer.masters.masters.items()}
    lost = torch.tensor(float("nan") if ranks.rank() == 1 else 1.0)
    keys = [f"{ranks.rank()}-{i}" for i in range(4)]
    (folder / parallel).mkdir(exist_ok=True)
    out["lost"] = trainer._non_finite([(3, lost, {"key": keys}), (4, lost, {"key": []})])
    return out


NORMS: dict[str, tuple[nn.Module, tuple[int, ...], torch.dtype]] = {
    "plain": (nn.BatchNorm2d(4), (6, 4, 3, 5), torch.float32),
    "features alone": (nn.BatchNorm1d(4), (6, 4), torch.float32),
    "cumulative": (nn.BatchNorm1d(4, momentum=None), (6, 4, 3), torch.float32),
    "without gains": (nn.BatchNorm2d(4, affine=False), (6, 4, 2, 2), torch.float32),
    "without statistics": (nn.BatchNorm2d(4, track_running_stats=False), (6, 4, 2, 2), torch.float32),
    "float64": (nn.BatchNorm2d(4).double(), (6, 4, 2, 2), torch.float64),
    "bf16 within": (nn.BatchNorm2d(4), (6, 4, 3, 5), torch.bfloat16),
    "far from zero": (nn.BatchNorm2d(4), (6, 4, 8, 8), torch.float32),
}


def normalised(name: str, rows: slice) -> dict[str, Any]:
    """Two passes of a batch norm over some rows of a batch, in training, then one in evaluation."""
    kind, shape, dtype = NORMS[name]
    norm = copy.deepcopy(kind)
    generator = torch.Generator().manual_seed(3)
    for parameter in norm.parameters():
        parameter.data += torch.randn(4, generator=generator)
    if ranks.world() > 1:
        synchronise(nn.ModuleList([norm, nn.Linear(1, 1)]))
    out: dict[str, Any] = {"out": []}
    for _ in range(2):
        x, weight = (torch.randn(2, *shape, generator=generator) * 2).to(dtype)[:, rows]
        x += 1000 if name == "far from zero" else 1
        x.requires_grad_()
        y = norm(x)
        (y * weight).sum().backward()
        out["out"].append(y.detach())
    out |= {"input": x.grad, "gradients": {n: p.grad for n, p in norm.named_parameters()}}
    out |= {"state": norm.state_dict(), "evaluated": norm.eval()(x).detach()}
    return out


def lonely_value() -> str:
    """What is said of one example in all: the other process has none."""
    norm = nn.BatchNorm1d(2)
    synchronise(norm)
    try:
        norm(torch.ones(1 - ranks.rank(), 2))
    except ValueError as error:
        return str(error)
    return ""


def resnet_task(seed: int = 0) -> Task:
    """A classifier of four blocks, no residual branch of which is silent."""
    torch.manual_seed(seed)
    image = ResNetConfig(block="basic", layers=(1, 1, 1, 1), stem="cifar", image_size=16, zero_init=False)
    model = ClassifierConfig(image=image, classes=3).build()
    assert model.head is not None
    nn.init.normal_(model.head.weight, std=0.1)
    return Task(model, {"classes": ClassificationConfig().build()}, {"classes": 1.0})


def labelled(rows: slice = slice(None)) -> dict[str, Tensor]:
    return {"image": whole_batch()["image"][rows], "label": torch.arange(BATCH)[rows] % 3}


def own_labelled() -> dict[str, Tensor]:
    share = BATCH // ranks.world()
    return labelled(slice(ranks.rank() * share, (ranks.rank() + 1) * share))


def small(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that take little room: 5 million weights would be sent for each case."""
    return {name: tensor for name, tensor in tensors.items() if tensor.numel() < 100_000}


def one_step(module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Any]:
    """A clipped SGD step on labelled pictures, and the pictures' scores after it."""
    outcome = module(batch)
    outcome.loss.backward()
    out: dict[str, Any] = {"loss": ranks.mean({"loss": outcome.loss})["loss"], "gradients": small(gradients(module))}
    out["norm"] = clip(module)
    torch.optim.SGD(module.parameters(), lr=LR).step()
    out |= {"after": small(weights(module)), "statistics": {n: s.clone() for n, s in statistics(unwrap(module))}}
    with torch.no_grad(), unsharded(module):
        task = unwrap(module).eval()
        out["scores"] = task.model.classify(labelled()["image"])
    return out


def trained_resnet(folder: Path, parallel: str) -> dict[str, Any]:
    """Two steps of the trainer in bf16 with a moving average, and the dtypes that a norm in the middle saw."""
    training = TrainingConfig(steps=2, parallel=parallel, ema=0.9, recompute=True)
    trainer = Trainer(resnet_task(ranks.rank()), training, AdamWConfig(lr=1e-3), ConstantConfig(), folder / "resnet")
    seen: list[str] = []
    middle = trainer.task.get_submodule("model.image.layer2.0.bn1")
    middle.register_forward_hook(
        lambda norm, given, out: seen.append(
            f"{given[0].dtype} {norm.weight.dtype} {norm.running_var.dtype} {out.dtype}"
        )
    )
    outcomes = [trainer._advance(own_labelled()) for _ in range(2)]
    out: dict[str, Any] = {"seen": sorted(set(seen)), "averaged": small(trainer.weights())}
    out["losses"] = [ranks.mean({"loss": outcome.loss})["loss"] for outcome in outcomes]
    out["norms"] = [float(outcome.metrics["gradient_norm"]) for outcome in outcomes]
    out |= {"after": small({n: full(m) for n, m in trainer.masters.masters.items()})}
    return out | {"statistics": {n: s.clone() for n, s in statistics(trainer.task)}}


def replica_flags() -> dict[str, Any]:
    plain, batch_norm = wrap(nn.Linear(2, 2), "ddp"), wrap(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "ddp")
    return {"plain": plain.broadcast_buffers, "batch_norm": batch_norm.broadcast_buffers}


def small_talk() -> dict[str, Any]:
    r = ranks.rank()
    calls: list[int] = []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda *a, **k: (calls.append(1), all_reduce(*a, **k))
    means = ranks.mean({"b": torch.tensor(1.0 + r), "a": torch.tensor([3]) * r, "lr": 5e-4})
    dist.all_reduce = all_reduce
    return {
        "rank": ranks.rank(),
        "world": ranks.world(),
        "main": ranks.is_main(),
        "means": means,
        "collectives": len(calls),
        "any": [ranks.any_rank(flag) for flag in (False, r == 1, True)],
        "collected": ranks.collect({"keys": ["schön"] * (3 * r), "rank": r}),
        "broadcast": [ranks.broadcast(f"from {r}"), ranks.broadcast(None if r == 0 else [1, 2.5], source=1)],
    }


def alone() -> dict[str, Any]:
    """What the last process measures of the whole batch while the other one does nothing."""
    out: dict[str, Any] = {}
    if ranks.rank() == 1:
        with ranks.alone(), torch.no_grad():
            out["here"] = [ranks.rank(), ranks.world(), ranks.is_main()]
            for name in ("words and matching", "slip"):
                out[name] = float(tasks.built(name).eval()(tasks.batch()).loss)
    return out | {"after": [ranks.rank(), ranks.world()]}


def main(folder: Path) -> None:
    precision.runs_here = lambda: True  # what a run in bf16 does is tested on CPUs, too, that only imitate it
    started = ranks.start("gloo", timeout=60)
    results = {
        "started": [started.rank, started.world, started.local, started.device.type],
        "ranks": small_talk(),
        "gather": gathered(),
        "refusals": refusals(),
        "flags": replica_flags(),
        "equivalence": equivalence(),
        "tasks": across(),
        "alone": alone(),
        "accumulated": {mode: plain_accumulation(mode) for mode in ("ddp", "fsdp")},
        "evaluation": {mode: evaluation(mode) for mode in ("ddp", "fsdp")},
        "steps": {mode: steps(mode) for mode in ("ddp", "fsdp")},
        "locked": {mode: steps(mode, locked=True) for mode in ("ddp", "fsdp")},
        "bf16": steps("fsdp", bf16=True),
        "lars": {mode: lars_steps(wrap(tiny_task("clip"), mode), own_batch()) for mode in ("ddp", "fsdp")},
        "trained": {mode: trained(folder, mode) for mode in ("ddp", "fsdp")},
        "norms": {name: normalised(name, slice(4, 6) if started.rank else slice(4)) for name in NORMS},
        "lonely": lonely_value(),
        "resnet": {mode: one_step(wrap(resnet_task(), mode), own_labelled()) for mode in ("ddp", "fsdp")},
        "trained resnet": {mode: trained_resnet(folder, mode) for mode in ("ddp", "fsdp")},
    }
    torch.save(results, folder / f"{started.rank}.pt")
    ranks.stop()
    assert (ranks.rank(), ranks.world()) == (0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    ranks.leave(0)
