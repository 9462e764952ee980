import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.layers.draws import two_draws
from pictura.models.base import ModelConfig
from pictura.models.captioner import Captioner, CaptionerConfig, DecoderConfig
from pictura.models.clip import CLIPConfig
from pictura.models.vit import ViTConfig

TOWER = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, heads=3)
START, END = 4, 5
IMAGE = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TEXT = torch.tensor([[START, 1, 2, END, 0], [START, 3, END, 0, 0], [START, 0, 0, 3, END]])


def model_of(dropout: float = 0.0, in_tower: float = 0.0) -> Captioner:
    """One that is sure of itself, so that captions of different pictures differ."""
    torch.manual_seed(0)
    text = DecoderConfig(vocab_size=6, context_length=6, width=24, depth=2, heads=3, end_token=END, dropout=dropout)
    model = CaptionerConfig(image=replace(TOWER, dropout=in_tower), text=text, embed_dim=10, prefix=3).build()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


@torch.no_grad()
def log_p(model: Captioner, picture: int, ids: tuple[int, ...]) -> float:
    """Of a caption and its end, read at once without anything kept."""
    text = torch.tensor([[START, *ids, END]])
    steps = model(IMAGE[picture, None], text)[0, :-1].log_softmax(-1)
    return float(steps.gather(1, text[0, 1:, None]).sum())


def test_scores_are_those_of_a_plain_transformer_over_prefix_and_words() -> None:
    model = model_of()
    found = model(IMAGE, TEXT)
    assert found.shape == (3, 5, 6) and found.dtype == torch.float32
    for i, n in enumerate((4, 3, 5)):
        words = model.text.token_embedding(TEXT[i, 1:n])
        x = torch.cat([model.prefix(IMAGE[i, None])[0], words])[None]
        x = x + model.text.pos_embed[: x.shape[1]]
        for block in model.text.blocks:
            x = block(x)
        scores = model.text.norm(x[0, 2:]) @ model.text.token_embedding.weight.T
        torch.testing.assert_close(found[i, :n], scores)


def test_a_prefix_is_made_of_the_direction_alone_of_a_picture_s_vector() -> None:
    model = model_of()
    vector = F.normalize(model.encode_image(IMAGE), dim=-1)
    hidden = (vector * 10**0.5 @ model.mapping.fc1.weight.T + model.mapping.fc1.bias).tanh()
    expected = (hidden @ model.mapping.fc2.weight.T + model.mapping.fc2.bias).view(3, 3, 24)
    torch.testing.assert_close(model.prefix(IMAGE), expected)
    model.image_projection.weight.data.mul_(7)
    torch.testing.assert_close(model.prefix(IMAGE), expected)


def test_a_token_sees_those_before_it_alone_and_the_start_is_not_read() -> None:
    model = model_of()
    before = model(IMAGE, TEXT)
    other = TEXT.clone()
    other[:, 0], other[0, 2] = 1, 3
    after = model(IMAGE, other)
    torch.testing.assert_close(after[0, :2], before[0, :2])
    torch.testing.assert_close(after[1, :3], before[1, :3])
    assert not torch.allclose(after[0, 2], before[0, 2])


def test_its_tower_has_the_names_and_the_vectors_of_a_clip() -> None:
    clip = CLIPConfig(image=TOWER, embed_dim=10).build().eval()
    model, shared = model_of(), ("image.", "image_projection.")
    own = {name: value for name, value in clip.state_dict().items() if name.startswith(shared)}
    assert own.keys() == {name for name in model.state_dict() if name.startswith(shared)}
    model.load_state_dict(own, strict=False)
    assert torch.equal(model.encode_image(IMAGE), clip.encode_image(IMAGE))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_enough_beams_the_best_caption_of_all_is_told(penalty: float) -> None:
    model = model_of()
    told = model.generate(IMAGE, beams=80, longest=3, length_penalty=penalty)
    for picture, one in enumerate(told):
        every = [ids for n in range(3) for ids in itertools.product(range(5), repeat=n)]
        scores = [log_p(model, picture, ids) / (len(ids) + 1) ** penalty for ids in every]
        assert tuple(one.ids) == every[scores.index(max(scores))] and one.score == pytest.approx(max(scores), rel=1e-4)


def test_one_beam_is_greedy_and_the_longest_there_is_room_for() -> None:
    model = model_of()
    model.text.token_embedding.weight.data[END] -= 2 * model.text.norm.bias.data  # seldom an end
    told = model.generate(IMAGE, beams=1)
    assert told == model.generate(IMAGE, beams=1), "the same again"
    for picture, one in enumerate(told):
        text = [START]
        while len(text) < 5:
            scores = model(IMAGE[picture, None], torch.tensor([[*text, END]]))[0, len(text) - 1]
            if (token := int(scores.argmax())) == END:
                break
            text.append(token)
        assert one.ids == text[1:]
        assert one.score == pytest.approx(log_p(model, picture, tuple(one.ids)) / (len(one.ids) + 1), rel=1e-4)


def test_nothing_is_told_in_training_or_beyond_its_room() -> None:
    model = model_of()
    for options, told in (({"longest": 6}, "from 1 to 5"), ({"beams": 0}, "beams: 0"), ({"longest": 0}, "longest: 0")):
        with pytest.raises(ValueError, match=told):
            model.generate(IMAGE, **options)
    with pytest.raises(ValueError, match=r"in training, .* call model\.eval"):
        model.train().generate(IMAGE)
    with pytest.raises(ValueError, match="text of 7 tokens: this model reads at most 6"):
        model(IMAGE, torch.zeros(3, 7, dtype=torch.long))


@pytest.mark.parametrize(("dropout", "tower"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.0, 0.0)])
def test_two_draws(dropout: float, tower: float) -> None:
    """Wherever chance begins, the first half is one draw of all, the second another."""
    model = model_of(dropout, tower).train()
    with two_draws(model):
        states = model.states(IMAGE, TEXT)
    assert states.shape == ((6, 5, 24) if dropout or tower else (3, 5, 24))
    if dropout or tower:
        assert not torch.allclose(states[:3], states[3:])
    with two_draws(model.eval()):
        torch.testing.assert_close(model.states(IMAGE, TEXT), model.states(IMAGE, TEXT))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prefix": 0}, "prefix: 0 must be above zero"),
        ({"embed_dim": 0}, "embed_dim: 0 must be above zero"),
        ({"text": {"width": 100, "heads": 3}}, "heads: 3 does not divide width 100; try 2"),
        ({"text": {"dropout": 1.0}}, r"dropout: 1\.0 must be at least 0 and below 1"),
        ({"text": {"context_length": 1}}, "context_length: 1 has no room for a start and an end"),
    ],
)
def test_configurations_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load(ModelConfig, {"kind": "captioner"} | given)


def test_without_an_end_token_it_is_the_last_id() -> None:
    assert DecoderConfig(vocab_size=9).end == 8 and DecoderConfig(vocab_size=9, end_token=0).end == 0


def test_a_fresh_one_knows_nothing() -> None:
    """Every token about as likely as any other, whatever the picture: the loss begins near log k."""
    torch.manual_seed(0)
    text = DecoderConfig(vocab_size=500, context_length=8, width=64, depth=2, heads=2, end_token=1)
    model = CaptionerConfig(image=TOWER, text=text, embed_dim=16).build().eval()
    ids: Tensor = torch.randint(2, 500, (3, 8))
    surprise = F.cross_entropy(model(IMAGE, ids).flatten(0, 1), ids.roll(-1, 1).flatten())
    assert surprise.item() == pytest.approx(torch.tensor(500.0).log().item(), rel=0.05)
    prefix, words = model.prefix(IMAGE), model.text.token_embedding.weight
    assert prefix.std().item() == pytest.approx(words.std().item(), rel=0.7), "as long as words"
