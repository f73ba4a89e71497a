"""Which networks the zoo holds. Nothing here needs torch, ONNX or NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models" / "zoo"
FIXTURES = ROOT / "tests" / "zoo_models"

# How a network becomes a file: torch's TorchScript exporter, its newer one, and the first once more with nothing
# folded, so that every BatchNormalization is still there. "shipped" files are taken as they are.
EXPORTERS = ("torchscript", "dynamo", "unfolded")
SHIPPED = "shipped"


@dataclass(frozen=True)
class Entry:
    """One network.

    build: "module:function" under nets/, or for a shipped model the file, relative to the repository.
    sample: shape of one sample of each input, for the export; an input named timestep holds integers below 1000.
    small: the same for the fixtures of the test suite.
    fixture, dynamo_fixture: whether the older, and the newer, exporter's file is one.
    """

    name: str
    title: str
    build: str
    sample: dict[str, tuple[int, ...]]
    small: dict[str, tuple[int, ...]]
    dynamo_fixture: bool = False
    fixture: bool = True

    @property
    def shipped(self) -> bool:
        return self.build.endswith(".onnx")

    @property
    def exporters(self) -> tuple[str, ...]:
        return (SHIPPED,) if self.shipped else EXPORTERS

    def file(self, exporter: str) -> Path:
        """Where the exported file lies."""
        return ROOT / self.build if self.shipped else MODELS / f"{self.name}.{exporter}.onnx"


def _picture(name: str, title: str, build: str, size: int = 96, small: int = 64, dynamo: bool = False) -> Entry:
    return Entry(name, title, build, {"image": (3, size, size)}, {"image": (3, small, small)}, dynamo)


def _shipped(name: str, title: str, file: str, fixture: bool = False) -> Entry:
    return Entry(name, title, file, {}, {}, fixture=fixture)


_NOISY = {"image": (3, 32, 32), "timestep": ()}

ENTRIES = (
    _picture("resnet18", "ResNet-18", "resnets:resnet18", dynamo=True),
    _picture("resnet34", "ResNet-34", "resnets:resnet34"),
    _picture("resnet50", "ResNet-50", "resnets:resnet50"),
    _picture("resnext50", "ResNeXt-50 32×4d", "resnets:resnext50"),
    _picture("preact_resnet18", "ResNet-18, pre-activation", "resnets:preact_resnet18", size=32, small=32),
    _picture("vgg19", "VGG-19 with BatchNorm", "plain:vgg19"),
    _picture("mobilenet_v1", "MobileNetV1", "plain:mobilenet_v1"),
    _picture("mobilenet_v2", "MobileNetV2 1.0", "mobile:mobilenet_v2", size=128, dynamo=True),
    _picture("mobilenet_v2_14", "MobileNetV2 1.4", "mobile:mobilenet_v2_14", size=128),
    _picture("mobilenet_v3_large", "MobileNetV3-Large", "mobile:mobilenet_v3_large", size=128, dynamo=True),
    _picture("efficientnet_b0", "EfficientNet-B0", "mobile:efficientnet_b0", size=128),
    _picture("repvgg_a0", "RepVGG-A0 as trained", "branches:repvgg_a0"),
    _picture("densenet121", "DenseNet-121", "branches:densenet121"),
    _picture("squeezenet", "SqueezeNet 1.1", "plain:squeezenet"),
    _picture("inception_v3", "Inception-v3", "branches:inception_v3", size=128, small=80),
    _picture("shufflenet_v2", "ShuffleNetV2 1.0", "branches:shufflenet_v2"),
    _picture("yolo", "YOLO-style detector", "yolo:yolo", size=128, dynamo=True),
    _picture("unet", "U-Net, transposed convolutions", "unets:unet", small=32),
    _picture("unet_resize", "U-Net, Resize", "unets:unet_resize", small=32),
    Entry("ddpm", "DDPM U-Net 32×32", "unets:ddpm", _NOISY, _NOISY, dynamo_fixture=True),
    _picture("convnext_tiny", "ConvNeXt-Tiny", "other:convnext_tiny"),
    Entry("ecg", "1-D residual net (ECG)", "other:ecg", {"signal": (12, 1024)}, {"signal": (12, 512)}),
    Entry("video", "3-D net (video)", "other:video", {"clip": (3, 8, 32, 32)}, {"clip": (3, 4, 16, 16)}),
    _shipped("efficientnet_lite0", "EfficientNet-Lite0", "models/efficientnet_lite0.onnx", fixture=True),
    _shipped("pplcnet_orientation", "PP-LCNet page orientation", "models/pplcnet_orientation.onnx"),
    _shipped("open_nsfw", "open_nsfw, ResNet-50-thin", "models/open_nsfw.onnx"),
    _shipped("resnet20", "ResNet-20 for MNIST", "examples/mnist/resnet20.onnx"),
)
