"""Data sets of images, read from files the user has, and what feeds them to training."""

from handgrad.data import augment
from handgrad.data.cifar import load_cifar10, load_cifar100
from handgrad.data.dataset import Dataset
from handgrad.data.digits import load_digits
from handgrad.data.idx import read_idx
from handgrad.data.images import ImageFiles, Images, image_files, image_folder, read_images
from handgrad.data.mnist import load_fashion_mnist, load_mnist
from handgrad.data.npz_file import load_npz
from handgrad.data.pipeline import batches, normalise, split
from handgrad.data.prefetch import prefetch
from handgrad.data.two_d import two_d_problem

__all__ = [
    "Dataset",
    "ImageFiles",
    "Images",
    "augment",
    "batches",
    "image_files",
    "image_folder",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_npz",
    "normalise",
    "prefetch",
    "read_idx",
    "read_images",
    "split",
    "two_d_problem",
]
