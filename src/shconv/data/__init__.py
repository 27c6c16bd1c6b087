"""Data sets as uint8 images: a demo that needs no download, CIFAR-10, image folders, ImageNet; their batches."""

from shconv.data.datasets import load_data
from shconv.data.loading import evaluation_batches, training_batches
from shconv.data.preparation import Preparation
from shconv.data.splits import Batch, ImageData, ImageSplit

__all__ = ["Batch", "ImageData", "ImageSplit", "Preparation", "evaluation_batches", "load_data", "training_batches"]
