import pytest

from pictura.data.captioned import CaptionedConfig
from pictura.data.scenes import ScenesConfig

LABELLED = ScenesConfig(objects=(1, 1), gives=("image", "label"), label_of="colour", count=20)


def test_captions_name_the_class_in_every_template():
    source = CaptionedConfig(of=LABELLED, templates=("a {} thing", "something {}")).build()
    plain = LABELLED.build()
    assert source.provides == {"image", "label", "captions"}
    assert len(source) == 20
    for i in range(20):
        name = plain.class_names[plain[i]["label"]]
        assert source[i]["captions"] == [f"a {name} thing", f"something {name}"]
        assert source[i]["label"] == plain[i]["label"]


def test_a_template_without_its_slot_is_refused():
    with pytest.raises(ValueError, match="needs one slot"):
        CaptionedConfig(of=LABELLED, templates=("a thing",))


def test_a_source_without_labels_is_refused():
    with pytest.raises(ValueError, match="no labels"):
        CaptionedConfig(of=ScenesConfig(count=5)).build()
