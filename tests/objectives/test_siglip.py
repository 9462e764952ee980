import math

import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.objectives.siglip import SigLIPObjectiveConfig
from tests.objectives.test_clip import batch, tiny


def test_from_a_recipe() -> None:
    assert load(ObjectiveConfig, {"kind": "siglip"}) == SigLIPObjectiveConfig(weight=1.0)


def test_the_loss_as_algorithm_1_of_the_paper_has_it() -> None:
    model, given = tiny(logit_scale=math.log(10), logit_bias=-10.0), batch()
    outcome = Task(model, {"siglip": SigLIPObjectiveConfig().build()}, {"siglip": 1.0})(given)
    image = F.normalize(model.encode_image(given["image"]), dim=1)
    text = F.normalize(model.encode_text(given["text"]), dim=1)
    logits = image @ text.T * model.logit_scale.exp() + model.logit_bias
    expected = -F.logsigmoid((2 * torch.eye(6) - 1) * logits).sum() / 6
    torch.testing.assert_close(outcome.loss, expected)
    found = torch.autograd.grad(outcome.loss, list(model.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(model.parameters())), rtol=1e-3, atol=1e-6)
    assert outcome.metrics["siglip/scale"].item() == pytest.approx(10)
    assert outcome.metrics["siglip/bias"].item() == -10
    assert set(outcome.metrics) == {"loss", *(f"siglip/{name}" for name in ("loss", "scale", "bias", "hits"))}


def test_a_model_without_a_bias_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objectives\.s: the model has no bias; set model.logit_bias=-10"):
        Task(tiny(), {"s": SigLIPObjectiveConfig().build()}, {"s": 1.0})


def test_its_temperature_has_no_bound() -> None:
    model = tiny(logit_scale=6.0, logit_bias=-10.0)
    Task(model, {"siglip": SigLIPObjectiveConfig().build()}, {"siglip": 1.0}).settle()
    assert model.logit_scale.item() == 6.0
