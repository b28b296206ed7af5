"""Nets by name: each function gives a layer, to be initialised with `net.init(key, in_shape)`.

    perceptron mlp                                  dense
    lenet digits_cnn fashion_cnn lenet5             for images of 8x8 to 32x32
    resnet9 resnet20 resnet32 resnet56              for 32x32x3, the first for 28x28 too
    alexnet vgg11 vgg13 vgg16 vgg19                 for about 224x224x3
    resnet18 resnet34 resnet50 mobilenet_v1         likewise
    alexnet_one_tower                               torchvision's alexnet

`IN_SHAPES` holds the shape that each is meant for. `from_torch` and `to_torch` take weights from PyTorch and give them
back, `save_safetensors` and `load_safetensors` keep them in a file that other libraries read too.
"""

from handgrad.models.alexnet import alexnet, alexnet_one_tower
from handgrad.models.lenet import lenet5
from handgrad.models.mlp import mlp, perceptron
from handgrad.models.mobilenet import mobilenet_v1
from handgrad.models.names import IN_SHAPES, NAMES, by_name
from handgrad.models.resnet import (
    cifar_resnet,
    resnet,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet50,
    resnet56,
)
from handgrad.models.resnet9 import resnet9
from handgrad.models.small import digits_cnn, fashion_cnn, lenet
from handgrad.models.tensor_file import load_safetensors, read_safetensors, save_safetensors
from handgrad.models.text import from_text
from handgrad.models.torch_weights import from_torch, to_torch
from handgrad.models.vgg import vgg, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "IN_SHAPES",
    "NAMES",
    "alexnet",
    "alexnet_one_tower",
    "by_name",
    "cifar_resnet",
    "digits_cnn",
    "fashion_cnn",
    "from_text",
    "from_torch",
    "lenet",
    "lenet5",
    "load_safetensors",
    "mlp",
    "mobilenet_v1",
    "perceptron",
    "read_safetensors",
    "resnet",
    "resnet18",
    "resnet9",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet56",
    "save_safetensors",
    "to_torch",
    "vgg",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
