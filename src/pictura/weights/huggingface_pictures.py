"""What Hugging Face's image processors do (transformers, models/{clip,vit}/image_processing_*.py), as configuration.

preprocessor_config.json says it, or since transformers 5 the `image_processor` of processor_config.json.
"""

import math
from collections.abc import Mapping
from typing import Any

from pictura.data.views import CropConfig
from pictura.models.pictures import PictureModelConfig
from pictura.weights.layout import Json

RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers

# What transformers takes where a file says nothing. A `size` of one number is of both sides, or of the shortest.
CLIP_PROCESSOR: Json = {
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "resample": 3,
    "do_center_crop": True,
}
VIT_PROCESSOR: Json = {
    "size": {"height": 224, "width": 224},
    "default_to_square": True,
    "resample": 2,
    "do_center_crop": False,
}


def beside(files: Mapping[str, Json]) -> tuple[str, Json] | None:
    """The file that says how pictures are prepared, wherever this version of transformers has written it."""
    if (found := files.get("preprocessor_config.json")) is not None:
        return "preprocessor_config.json", found
    found = files.get("processor_config.json", {}).get("image_processor")
    return ("processor_config.json", found) if isinstance(found, Mapping) else None


def pictures_from(json: Json, processor: Json) -> dict[str, Any]:
    """What an image processor does, as configuration. ValueError names what we could not do as it does."""
    size = json.get("size", processor["size"])
    side, squash = _side("size", size, processor["default_to_square"])
    crop = 1.0
    if json.get("do_center_crop", processor["do_center_crop"]):
        middle, _ = _side("crop_size", json.get("crop_size", 224), True)
        if middle > side:
            raise ValueError(f"crop_size: {middle} of a picture of {side} would leave black bars")
        crop = _share(middle, side)
    elif not squash:
        raise ValueError(f"size: {size!r} gives pictures that are not square")
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if not json.get(key, True):
            raise ValueError(f"{key}: false; our models always do")
    scale = json.get("rescale_factor", 1 / 255)
    if not isinstance(scale, float) or not math.isclose(scale, 1 / 255, rel_tol=1e-4):
        raise ValueError(f"rescale_factor: {scale!r} is not 1/255, by which our models scale")
    resample = json.get("resample", processor["resample"])
    if not isinstance(resample, int) or resample not in RESAMPLE:
        raise ValueError(f"resample: {resample!r} is neither 2 (bilinear) nor 3 (bicubic)")
    found = {"resize": "squash" if squash else "shortest", "interpolation": RESAMPLE[resample], "crop": crop}
    return found | {ours: json[f"image_{ours}"] for ours in ("mean", "std") if f"image_{ours}" in json}


def _side(key: str, size: Any, both: bool) -> tuple[int, bool]:
    """Pixels, and whether both sides get as many."""
    if isinstance(size, int):
        size = {"height": size, "width": size} if both else {"shortest_edge": size}
    if isinstance(size, Mapping):
        height, width, shortest = (size.get(one) for one in ("height", "width", "shortest_edge"))
        square = height is not None and height == width
        side = height if square else shortest
        if isinstance(side, int) and side > 0:
            return side, square
    raise ValueError(f"{key}: {size!r} gives pictures that are not square")


def _share(middle: int, side: int) -> float:
    """The shortest number by which `middle` is kept of `side`: 0.9 for 224 of 248, as it was meant."""
    shares = (math.floor(middle / side * 10**digits) / 10**digits for digits in range(1, 9))
    return next((share for share in shares if share > 0 and _resized(middle, share) == side), middle / side)


def _resized(size: int, share: float) -> int:
    return CropConfig(image_size=size, crop=share).resized_to


def processor_of(config: PictureModelConfig) -> dict[str, Any]:
    """preprocessor_config.json: the inverse of `pictures_from`. CLIP's processor can do all that ours do; ViT's cannot
    take the middle of a picture in every version of transformers.
    """
    size = config.tower.image_size
    side = _resized(size, config.crop)
    squash = config.resize == "squash"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if squash else {"shortest_edge": side},
        "resample": next(number for number, name in RESAMPLE.items() if name == config.interpolation),
        "do_center_crop": not squash or side != size,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def vilt_pictures_from(json: Json, image_size: int, patch_size: int) -> dict[str, Any]:
    """What a `ViltImageProcessor` does, as configuration. ValueError where it is not what the model would do."""
    side, _ = _side("size", json.get("size", {"shortest_edge": 384}), False)
    for key, given, wanted in (("size", side, image_size), ("size_divisor", json.get("size_divisor", 32), patch_size)):
        if given != wanted:
            raise ValueError(f"{key}: {given}, but the model's is {wanted}")
    return {ours: json[f"image_{ours}"] for ours in ("mean", "std") if f"image_{ours}" in json}


def vilt_processor_of(config: PictureModelConfig, patch_size: int) -> dict[str, Any]:
    """preprocessor_config.json of a ViLT."""
    return {
        "image_processor_type": "ViltImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.tower.image_size},
        "size_divisor": patch_size,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_pad": True,
    }
