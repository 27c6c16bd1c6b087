"""Size and speed of a network in every form it can leave PyTorch in, beside itself: one line each.

    python benchmarks/export.py --model resnet18_shc --images 8 --threads 1

Seconds are the median of --repeats passes over one batch, taken turn by turn, in one run on one machine: a single
measurement. Outputs are compared with the network's first, on batches of one image and of two more than the example.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

import shconv
from shconv.export import to_onnx

Forward = Callable[[Tensor], Tensor]


def forms(model: nn.Module, images: Tensor, folder: Path, threads: int) -> dict[str, tuple[Forward, int]]:
    """Each form's forward pass and its bytes on disk."""
    weights, program, onnx = folder / "weights.pt", folder / "network.pt2", folder / "network.onnx"
    torch.save(model.state_dict(), weights)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("N")},))
    torch.export.save(exported, program)
    to_onnx(model, onnx, images)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(onnx), options)
    size = weights.stat().st_size
    return {
        "eager": (model, size),
        "torch.compile": (torch.compile(model, fullgraph=True, dynamic=True), size),
        "torch.export": (exported.module(), program.stat().st_size),
        "onnxruntime": (
            lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0]),
            onnx.stat().st_size,
        ),
    }


def seconds(function: Forward, images: Tensor) -> float:
    start = time.perf_counter()
    function(images)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18_shc", choices=shconv.list_models())
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = shconv.create_model(options.model, num_classes=10, stem="small", width=options.width)
    images = torch.rand(options.images, 3, options.pixels, options.pixels)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for _ in range(10):  # batch norm sees its statistics
            model(images)
        kinds = forms(model.eval(), images, Path(folder), options.threads)
        batches = [images, images[:1], torch.cat([images, images[:2]])]
        apart = {
            name: max(float((forward(x) - model(x)).abs().max()) for x in batches)
            for name, (forward, _) in kinds.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(options.repeats):
            for name, (forward, _) in kinds.items():
                taken[name].append(seconds(forward, images))
        logits = float(model(images).abs().max())
    shape, threads = "x".join(map(str, images.shape)), f"{options.threads} thread" + "s" * (options.threads > 1)
    print(f"{options.model}, width {options.width}, {shape}, {threads}, torch {torch.__version__}, "
          f"onnxruntime {onnxruntime.__version__}; largest logit {logits:.2g}\n")  # fmt: skip
    print("| form | MB on disk | ms a batch | times eager's | largest difference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    usual = statistics.median(taken["eager"])
    for name, (_, size) in kinds.items():
        median = statistics.median(taken[name])
        print(f"| {name} | {size / 1e6:.1f} | {median * 1e3:.1f} | {median / usual:.2f} | {apart[name]:.1e} |")


if __name__ == "__main__":
    main()
