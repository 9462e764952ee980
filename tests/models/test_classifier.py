import pytest
import torch

from pictura.models.classifier import ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.vit import ViTConfig

TOWER = ViTConfig(image_size=16, patch_size=8, width=24, depth=2, heads=3)


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_head_of_zeros_gives_its_bias_for_every_class() -> None:
    scores = ClassifierConfig(image=TOWER, classes=5, head_bias=-10.0).build().classify(pictures())
    assert torch.equal(scores, torch.full((3, 5), -10.0))


def test_the_head_reads_what_encode_image_gives() -> None:
    model = ClassifierConfig(image=TOWER, classes=5, pre_logits=7).build().eval()
    assert model.head is not None
    torch.nn.init.normal_(model.head.weight)
    features = model.encode_image(pictures())
    assert features.shape == (3, 7) and features.abs().max() < 1
    expected = torch.tanh(model.image((pictures().float() / 255 - 0.5) / 0.5) @ model.pre_logits.fc.weight.T)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(model.classify(pictures()), features @ model.head.weight.T)


@pytest.mark.parametrize("tower", [TOWER, MixerConfig(image_size=16, patch_size=8, width=24, depth=1)])
def test_without_classes_it_has_features_and_no_scores(tower: ViTConfig | MixerConfig) -> None:
    model = ClassifierConfig(image=tower).build()
    assert model.encode_image(pictures()).shape == (3, 24)
    with pytest.raises(ValueError, match="no head"):
        model.classify(pictures())


def test_every_tensor_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def full_of_nan(*sizes: object, **options: object) -> torch.Tensor:
        out: torch.Tensor = empty(*sizes, **options)  # type: ignore[call-overload]
        return out.fill_(float("nan")) if out.is_floating_point() else out

    monkeypatch.setattr(torch, "empty", full_of_nan)
    model = ClassifierConfig(image=TOWER, classes=5, pre_logits=7).build()
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"classes": -1}, "classes: -1"),
        ({"classes": 3, "class_names": ("a", "b")}, "2 names for 3 classes"),
        ({"pre_logits": 0}, "pre_logits: 0"),
        ({"crop": 0.0}, "crop: 0.0"),
        ({"mean": (0.5,)}, "mean: "),
        ({"std": (0.5, 0.0, 0.5)}, "std: "),
    ],
)
def test_mistakes(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClassifierConfig(image=TOWER, **wrong)  # type: ignore[arg-type]


def test_a_tower_may_be_left_to_a_recipe_but_no_module_does_without() -> None:
    with pytest.raises(ValueError, match="image: missing; give a tower"):
        ClassifierConfig(classes=3).build()


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 1, 16, 16), (0, 3, 16, 16), (2, 3, 0, 16)])
def test_what_are_no_pictures_is_refused(shape: tuple[int, ...]) -> None:
    model = ClassifierConfig(image=TOWER, classes=3).build()
    with pytest.raises(ValueError, match=r"pictures of shape"):
        model.classify(torch.zeros(shape))
