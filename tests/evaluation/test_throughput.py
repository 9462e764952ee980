import pytest

from pictura.evaluation.embed import Embedder
from pictura.evaluation.throughput import Throughput
from tests.evaluation.conftest import Made


def test_it_counts_pictures_and_texts(embedder: Embedder) -> None:
    values = dict(Throughput(Made(30, broken=[20]), 25, "t").run(embedder))
    assert list(values) == ["throughput/t/pictures_per_second", "throughput/t/texts_per_second"]
    assert min(values.values()) > 0


def test_one_batch_is_timed_whole(embedder: Embedder) -> None:
    assert dict(Throughput(Made(3), 512).run(embedder))["throughput/pictures_per_second"] > 0


def test_no_picture(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="not one of 2 examples can be read"):
        dict(Throughput(Made(2, broken=[0, 1]), 5).run(embedder))
