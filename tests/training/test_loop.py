import json
import math
import signal
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.objectives.base import Batch
from pictura.training.config import TrainingConfig
from pictura.training.loop import NonFinite, Trainer
from pictura.training.metrics import read_metrics
from pictura.training.optimizers import AdamWConfig, MuonConfig
from pictura.training.schedules import CosineConfig
from pictura.training.signals import Stopped
from tests.tiny import tiny
from tests.training.toys import Toy, batch, batches, task, trainer, weights


def logged(folder: Path, name: str = "loss") -> dict[int, float]:
    return {line["step"]: float(line[name]) for line in read_metrics(folder / "metrics.jsonl") if name in line}


def naive(steps: int, lr: float, clip: float) -> tuple[list[float], Toy]:
    """The same training in the fewest lines of plain torch."""
    model = Toy()
    decayed = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:  # two steps of warm-up, then half a cosine
            half = 0.5 * (1 + math.cos(math.pi * (step - 2) / (steps - 2)))
            group["lr"] = lr * ((step + 1) / 2 if step < 2 else half)
        given = batch(step)
        image = F.normalize(model.look(given["image"]), dim=1)
        text = F.normalize(model.text(given["text"]), dim=1)
        loss = F.cross_entropy(model.logit_scale.exp() * image @ text.T, torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize("micro_batch", [None, 8, 3, 1])
def test_it_is_the_plain_loop(tmp_path: Path, micro_batch: int | None) -> None:
    ours = trainer(
        tmp_path,
        optimizer=AdamWConfig(lr=0.05),
        schedule=CosineConfig(warmup=2),
        clip_norm=0.3,
        micro_batch=micro_batch,
    )
    ours.run(batches)
    losses, model = naive(20, 0.05, 0.3)
    torch.testing.assert_close(list(logged(tmp_path).values()), losses, rtol=1e-5, atol=1e-6)
    assert losses[-1] < losses[0] / 1.5
    torch.testing.assert_close(weights(ours), dict(model.state_dict()), rtol=1e-4, atol=1e-5)


def test_the_norm_of_the_gradient_is_told_before_clipping(tmp_path: Path) -> None:
    ours = trainer(tmp_path, clip_norm=1e-3, steps=1)
    ours.run(batches)
    plain = task()
    plain(batch(0)).loss.backward()
    norm = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]).norm()
    assert logged(tmp_path, "gradient_norm")[1] == pytest.approx(float(norm), rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("optimizer", [AdamWConfig(lr=0.05), MuonConfig(lr=0.05)])
def test_resumed_in_another_trainer_it_goes_on_to_the_same_bits(
    tmp_path: Path, precision: str, optimizer: AdamWConfig
) -> None:
    def new(folder: str, steps: int) -> Trainer:
        given: dict[str, Any] = {"precision": precision, "ema": 0.9, "steps": steps, "seed": 7}
        return trainer(tmp_path / folder, toy=task(dropout=0.5), optimizer=optimizer, **given)

    whole = new("whole", 20)
    whole.run(batches)
    part = new("part", 13)
    part.run(batches)
    rest = new("part", 20)
    assert rest.resume() == 13
    torch.manual_seed(999)  # what else draws random numbers in between changes nothing
    rest.run(batches)
    assert logged(tmp_path / "part") == logged(tmp_path / "whole")
    for name, tensor in whole.weights().items():
        assert torch.equal(rest.weights()[name], tensor), name
    assert not torch.equal(whole.weights()["image.weight"], whole.masters.masters["model.image.weight"])


def test_randomness_belongs_to_seed_and_step(tmp_path: Path) -> None:
    def losses(name: str, seed: int) -> dict[int, float]:
        toy = trainer(tmp_path / name, toy=task(dropout=0.5), seed=seed, steps=5)
        torch.manual_seed(hash(name))
        toy.run(batches)
        return logged(tmp_path / name)

    assert losses("a", 1) == losses("b", 1)
    assert losses("c", 2) != losses("a2", 1)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, -5])
def test_any_seed_is_a_legal_one(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    trainer(tmp_path, seed=seed, steps=6).run(batches)
    assert len(set(seeds)) == 6
    assert all(type(s) is int and 0 <= s < 2**63 for s in seeds)


def test_the_average_is_measured_kept_and_taken_away_again(tmp_path: Path) -> None:
    ours = trainer(tmp_path, ema=0.5, steps=4, evaluate_every=2, precision="bf16")
    seen: list[tuple[int, Tensor, bool]] = []

    def evaluate(step: int) -> dict[str, float]:
        toy = ours.task.model
        assert isinstance(toy, Toy)
        seen.append((step, toy.image.weight.detach().clone(), toy.training))
        return {"toy/score": float(step)}

    metrics = ours.run(batches, evaluate)
    assert [step for step, *_ in seen] == [2, 4]
    assert not any(training for *_, training in seen)
    assert ours.task.training
    assert ours.ema is not None
    name = "model.image.weight"
    torch.testing.assert_close(seen[-1][1], ours.ema.averages[name].bfloat16(), rtol=0, atol=0)
    toy = ours.task.model
    assert isinstance(toy, Toy)
    torch.testing.assert_close(toy.image.weight, ours.masters.masters[name].bfloat16(), rtol=0, atol=0)
    assert not torch.equal(toy.image.weight, seen[-1][1])
    torch.testing.assert_close(ours.weights()["image.weight"], ours.ema.averages[name])
    assert metrics["toy/score"] == 4.0


def test_bf16_keeps_what_is_too_small_for_bf16(tmp_path: Path) -> None:
    """A thousand steps of a hundred-thousandth: in bf16 none of them would move a weight of one."""
    ours = trainer(
        tmp_path, precision="bf16", steps=100, optimizer=AdamWConfig(lr=1e-5, weight_decay=0.0), save_every=100
    )
    before = ours.masters.masters["model.image.weight"].detach().clone()
    ours.run(batches)
    toy = ours.task.model
    assert isinstance(toy, Toy)
    assert toy.image.weight.dtype == torch.bfloat16
    assert toy.logit_scale.dtype == torch.float32, "a temperature has no room in bf16"
    moved = (ours.weights()["image.weight"] - before).abs()
    assert ours.weights()["image.weight"].dtype == torch.float32
    assert 1e-5 < float(moved.median()) < 1.1e-3


def test_pictures_of_several_sizes_go_to_the_device_too() -> None:
    """To the one without memory, which every machine has."""
    trainer = Trainer.__new__(Trainer)
    trainer.device = torch.device("meta")
    image = [torch.zeros(3, 4, 4), torch.zeros(3, 4, 6)]
    moved = trainer._moved({"image": image, "label": torch.zeros(2), "key": ["a", "b"]})
    assert [(one.is_meta, one.shape) for one in moved["image"]] == [(True, one.shape) for one in image]
    assert moved["label"].is_meta
    assert moved["key"] == ["a", "b"]


def test_locked_parts_keep_their_bits(tmp_path: Path) -> None:
    ours = trainer(tmp_path, freeze=("image",), ema=0.9)
    before = weights(ours)
    ours.run(batches)
    after = weights(ours)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"image.weight", "image.bias"}
    again = trainer(tmp_path, freeze=("image",), ema=0.9, steps=30)
    assert again.resume() == 20
    assert torch.equal(again.weights()["image.weight"], before["image.weight"])


def test_locking_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"training\.freeze: the model has no part picture; it has image, text, blocks, drop"
    ):
        trainer(tmp_path, freeze=("picture",))


def test_recomputed_blocks_give_the_same(tmp_path: Path) -> None:
    from pictura.prepare import prepare

    losses = []
    for recompute in (False, True):
        prepared = prepare(
            tiny("model.image.dropout=0.1", "training.steps=3", f"training.recompute={recompute}".lower())
        )
        r, folder = prepared.recipe, tmp_path / str(recompute)
        calls: list[int] = []
        first = prepared.task.model.get_submodule("image.blocks.0.mlp")
        first.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        trained = Trainer(prepared.task, r.training, r.optimizer, r.schedule, folder)
        trained.run(lambda step, prepared=prepared: _plain(prepared.batches.iterate(step)))  # type: ignore[misc]
        losses.append(logged(folder))
        assert (
            len(calls) == (2 if recompute else 1) * 3 + 1
        )  # three steps, and what counts FLOPs, which never recomputes
    assert losses[0] == losses[1]


def _plain(stream: Any) -> Generator[Batch, None, None]:
    yield from stream


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_blocks_give_the_same(tmp_path: Path) -> None:
    from pictura.prepare import prepare

    losses = []
    for compile in (False, True):
        prepared = prepare(tiny("training.steps=4", f"training.compile={compile}".lower()))
        r, folder = prepared.recipe, tmp_path / str(compile)
        trained = Trainer(prepared.task, r.training, r.optimizer, r.schedule, folder)
        trained.run(lambda step, prepared=prepared: _plain(prepared.batches.iterate(step)))  # type: ignore[misc]
        losses.append(logged(folder))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_block_of_many_falls_back_to_the_uncompiled(tmp_path: Path) -> None:
    from pictura.prepare import prepare

    torch._dynamo.reset()
    limits = torch._dynamo.config
    kept = {name: getattr(limits, name) for name in ("recompile_limit", "accumulated_recompile_limit")}
    deep = ("model.image.depth=12", "model.image.drop_path=0.2", "training.compile=true", "training.steps=3")
    prepared = prepare(tiny(*deep))
    r = prepared.recipe

    def evaluate(step: int) -> dict[str, float]:
        given = next(iter(prepared.batches.iterate()))
        with torch.no_grad():
            prepared.task.embed(given)
            prepared.task.embed({k: v[:5] for k, v in given.items()})
        return {}

    # not by monkeypatch: its undoing deletes these settings, and whoever reads them next is told that there are none
    with limits.patch(fail_on_recompile_limit_hit=True, **kept):
        trained = Trainer(prepared.task, r.training, r.optimizer, r.schedule, tmp_path)
        trained.run(lambda step: _plain(prepared.batches.iterate(step)), evaluate)
    assert len(logged(tmp_path)) == 3


def test_lines_of_the_log(tmp_path: Path) -> None:
    ours = trainer(tmp_path, log_every=4, evaluate_every=5, steps=10)
    ours.run(batches, lambda step: {"toy/score": float(step)})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 10]
    assert [line["step"] for line in lines if "toy/score" in line] == [5, 10], (
        "no score is written where none was taken"
    )
    assert {"match/loss", "match/scale", "learning_rate", "gradient_norm"} <= lines[0].keys()


def test_best_goes_by_what_was_measured_at_that_very_step(tmp_path: Path) -> None:
    ours = trainer(tmp_path, steps=12, save_every=2, evaluate_every=4, keep_last=1, best=("toy/score", "max"))
    scores = {4: 0.9, 8: 0.5, 12: 0.1}
    ours.run(batches, lambda step: {"toy/score": scores[step]})
    assert ours.checkpoints.steps() == [4, 12], "step 6 was saved after the score of step 4, but never measured"


def poisoned(at: int, value: float = math.nan) -> Any:
    """Batches of which one holds what is no number."""

    def stream(start: int) -> Generator[Batch, None, None]:
        for step, given in enumerate(batches(start), start):
            if step + 1 == at:
                given["image"][0, 0] = value  # type: ignore[index]
            yield given

    return stream


@pytest.mark.parametrize("at", [1, 7, 10, 20])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, at: int) -> None:
    ours = trainer(tmp_path)
    with pytest.raises(NonFinite) as caught:
        ours.run(poisoned(at))
    told = str(caught.value)
    assert told.startswith(f"step {at}: the loss is nan, in the batch of {at - 1}-0, {at - 1}-1, ")
    good = (at - 1) // 5 * 5
    assert (f"the last good checkpoint is {tmp_path}/checkpoints/step-{good:06d}. A" in told) == (good > 0)
    assert ("there is no checkpoint yet" in told) == (good == 0)
    assert "A lower optimizer.lr" in told
    assert f"{at - 1}-3 and 4 more, in {tmp_path}/non-finite.json; " in told
    listed = json.loads((tmp_path / "non-finite.json").read_text())
    assert listed == {"step": at, "keys": [f"{at - 1}-{i}" for i in range(8)]}
    again = trainer(tmp_path)
    assert (again.resume() if good else 0) == good
    assert all(tensor.isfinite().all() for tensor in weights(again).values())


def test_weights_that_are_lost_after_a_good_loss_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trainer(tmp_path, clip_norm=None)
    settle = ours.task.settle

    def lossy() -> None:
        settle()
        if ours.step == 9:  # the tenth, which is to be saved
            toy = ours.task.model
            assert isinstance(toy, Toy)
            toy.text.weight.data[0, 0] = math.inf

    monkeypatch.setattr(ours.task, "settle", lossy)
    with pytest.raises(
        NonFinite, match=r"step 10: the weights are not finite any more, in the batch of 9-0, .*step-000005"
    ):
        ours.run(batches)
    assert ours.checkpoints.steps() == [5]


def test_asked_to_stop_it_saves_first(tmp_path: Path) -> None:
    ours = trainer(tmp_path)

    def stream(start: int) -> Generator[Batch, None, None]:
        for step, given in enumerate(batches(start), start):
            if step == 7:
                signal.raise_signal(signal.SIGTERM)
            yield given

    with pytest.raises(Stopped, match=rf"stopped by SIGTERM at step 8, .*pictura train --resume {tmp_path}$") as caught:
        ours.run(stream)
    assert caught.value.code == 143
    assert ours.checkpoints.steps() == [5, 8]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_asked_to_stop_it_does_not_evaluate_first(tmp_path: Path) -> None:
    ours, seen = trainer(tmp_path, evaluate_every=4), list[int]()

    def stream(start: int) -> Generator[Batch, None, None]:
        for step, given in enumerate(batches(start), start):
            if step == 7:
                signal.raise_signal(signal.SIGTERM)
            yield given

    with pytest.raises(Stopped):
        ours.run(stream, lambda step: {"toy/score": float(seen.append(step) or 0)})
    assert seen == [4]
    assert ours.checkpoints.steps() == [5, 8]


@pytest.mark.parametrize("at", [7, 20])
def test_an_evaluation_that_fails_costs_no_step(tmp_path: Path, at: int) -> None:
    def evaluate(step: int) -> dict[str, float]:
        if step == at:
            raise RuntimeError("a picture is gone")
        return {}

    ours = trainer(tmp_path, evaluate_every=7)
    with pytest.raises(RuntimeError, match="a picture is gone"):
        ours.run(batches, evaluate)
    assert trainer(tmp_path).resume() == at


def test_what_is_measured_can_be_the_best_whenever_it_was_measured(tmp_path: Path) -> None:
    ours = trainer(tmp_path, steps=10, save_every=5, evaluate_every=3, keep_last=1, best=("toy/score", "max"))
    scores = {3: 0.9, 6: 0.5, 9: 0.1, 10: 0.2}
    ours.run(batches, lambda step: {"toy/score": scores[step]})
    assert ours.checkpoints.steps() == [3, 10]


def test_best_by_what_is_no_metric(tmp_path: Path) -> None:
    ours = trainer(tmp_path, evaluate_every=2, best=("toy/scor", "max"))
    with pytest.raises(
        ValueError, match=r"^training\.best: toy/scor is no metric of this run; did you mean toy/score\?"
    ):
        ours.run(batches, lambda step: {"toy/score": 1.0})
    assert ours.checkpoints.steps() == [2]


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_what_no_objective_uses_is_named(tmp_path: Path, micro_batch: int | None) -> None:
    def new(**more: Any) -> Trainer:
        toy = task()
        toy.model.logit_bias = torch.nn.Parameter(torch.zeros(()))
        return trainer(tmp_path, toy=toy, steps=2, micro_batch=micro_batch, **more)

    with pytest.raises(ValueError, match=r"logit_bias is to be trained, but no objective uses it; .*training\.freeze$"):
        new().run(batches)
    new(freeze=("logit_bias",)).run(batches)
    assert new(freeze=("logit_bias",)).resume() == 2


def test_the_stream_is_closed_whatever_happens(tmp_path: Path) -> None:
    closed: list[int] = []

    def stream(start: int) -> Generator[Batch, None, None]:
        try:
            yield from batches(start)
        finally:
            closed.append(start)

    trainer(tmp_path / "a", steps=3).run(stream)
    blocked = trainer(tmp_path / "b", steps=3)
    (tmp_path / "b").write_text("a file where the run folder should be")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: cannot be written"):
        blocked.run(stream)
    assert closed == [0, 0]


def test_nothing_is_left_to_do(tmp_path: Path) -> None:
    ours = trainer(tmp_path, steps=5)
    ours.run(batches)
    log = (tmp_path / "metrics.jsonl").read_text()
    assert ours.run(batches) == {}
    assert (tmp_path / "metrics.jsonl").read_text() == log


@pytest.mark.parametrize("name", ["steps", "log_every", "save_every", "micro_batch", "evaluate_every"])
def test_counts_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^training\.{name}: 0 is below 1$"):
        tiny(f"training.{name}=0")


def test_batch_norm_has_no_micro_batches(tmp_path: Path) -> None:
    toy = task()
    toy.model.norm = torch.nn.BatchNorm1d(4)
    with pytest.raises(ValueError, match=r"training\.micro_batch: model\.norm is batch norm"):
        trainer(tmp_path, toy=toy, micro_batch=4)
    trainer(tmp_path, toy=toy)


def test_a_warm_up_longer_than_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="warmup: 30 steps do not fit into a run of 20"):
        trainer(tmp_path, schedule=CosineConfig(warmup=30))


def test_the_configuration_reads_and_writes() -> None:
    config = load(TrainingConfig, {"steps": 3, "best": ["zeroshot/top1", "max"], "freeze": ["image"]})
    assert config == replace(TrainingConfig(steps=3), best=("zeroshot/top1", "max"), freeze=("image",))
