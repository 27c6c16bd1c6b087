"""Derivatives of any order, in either direction, and torch.func's transforms: what the reference, which is made of
torch's own operations, can be put through, the op can be put through with the same result."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_leaves

from shconv.ops import FORMULATIONS, filtered_conv2d, reference
from shconv.ops.geometry import Geometry

ALL = (0, 1, 2, 3)
Convolution = Callable[..., Tensor]


def inputs(groups: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x, weight, map and bias; the same numbers at every call."""
    torch.manual_seed(0)
    shapes = (2, 2, 3, 3), (2, 2 // groups, 3, 2), (2, 3, 2), (2,)
    return tuple(torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes)


def directions(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.cos() for tensor in tensors)


def stacked(tensors: tuple[Tensor, ...], which: int, dim: int) -> list[Tensor]:
    """The tensors, the one in question as three entries along dim."""
    return [torch.stack([t, 2 * t, t.flip(0)], dim) if i == which else t for i, t in enumerate(tensors)]


def loss(f: Convolution) -> Callable[..., Tensor]:
    return lambda *tensors: f(*tensors).sin().square().sum()


def of_one(f: Convolution) -> Callable[..., Tensor]:
    """The loss of one image, as per-sample gradients want it."""
    return lambda x, weight, M, bias: loss(f)(x[None], weight, M[None], bias)


def by_autograd(f: Convolution, *tensors: Tensor) -> Any:
    """Differentiated three times, through every input."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value, gradients = loss(f)(*leaves), ()
    for _ in range(3):
        gradients = torch.autograd.grad(value, leaves, create_graph=True)
        value = sum((gradient / 8).sin().sum() for gradient in gradients)  # tame, so that float32 will do
    return gradients


def in_a_dual_level(f: Convolution, *tensors: Tensor) -> Any:
    """Tangents of the output and, through a backward pass, of the gradient of x."""
    x = tensors[0].clone().requires_grad_()
    with forward_ad.dual_level():
        Y = f(forward_ad.make_dual(x, x.detach().cos()), *tensors[1:])
        (dX,) = torch.autograd.grad(Y.sin().sum(), x, create_graph=True)
        return forward_ad.unpack_dual(Y).tangent, forward_ad.unpack_dual(dX).tangent


def backward_with_a_tangent(f: Convolution, *tensors: Tensor) -> Any:
    """Forward mode that starts after the convolution: what is differentiated is its backward pass alone."""
    _, pullback = vjp(f, *tensors)
    dY = f(*tensors)
    return jvp(pullback, (dY,), (dY.cos(),))


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, *t: grad(loss(f), ALL)(*t),
    "jacrev": lambda f, *t: jacrev(f, ALL)(*t),
    "jacfwd": lambda f, *t: jacfwd(f, ALL)(*t),
    "jvp of all": lambda f, *t: jvp(f, t, directions(t)),
    **{f"jvp of {i}": lambda f, *t, i=i: jvp(lambda a: f(*t[:i], a, *t[i + 1 :]), (t[i],), (t[i].cos(),)) for i in ALL},
    "forward over reverse": lambda f, *t: hessian(loss(f), ALL)(*t),
    "reverse over forward": lambda f, *t: jacrev(jacfwd(loss(f), ALL), ALL)(*t),
    "reverse over reverse": lambda f, *t: jacrev(jacrev(loss(f), ALL), ALL)(*t),
    "forward over forward": lambda f, *t: jacfwd(jacfwd(loss(f), ALL), ALL)(*t),
    "backward with a tangent": backward_with_a_tangent,
    "three times by autograd": by_autograd,
    "dual level": in_a_dual_level,
    "double backward trick": lambda f, *t: torch.autograd.functional.jvp(loss(f), t, directions(t)),
    "vectorised Jacobian": lambda f, *t: torch.autograd.functional.jacobian(f, t, vectorize=True),
    **{
        f"vmap of {i} along {dim}": lambda f, *t, i=i, dim=dim: vmap(
            f, in_dims=tuple(dim if j == i else None for j in ALL), out_dims=1
        )(*stacked(t, i, dim))
        for i in ALL
        for dim in (0, -1)
    },
    "vmap in vmap": lambda f, x, w, M, b: vmap(vmap(f, (0, None, None, None)), (None, None, 0, None))(
        torch.stack([x, x.cos()]), w, torch.stack([M, M.cos(), M.sin()]), b
    ),
    "vmap of an empty batch": lambda f, x, w, M, b: vmap(f, (0, None, 0, None))(x[None, :0], w, M[None, :0], b),
    "per-sample gradients": lambda f, *t: vmap(grad(of_one(f), ALL), (0, None, 0, None))(*t),
    "per-sample gradients of x and M": lambda f, *t: vmap(grad(of_one(f), (0, 2)), (0, None, 0, None))(*t),
    "per-sample curvature": lambda f, x, w, M, b: vmap(
        lambda x, M: jvp(grad(lambda w: of_one(f)(x, w, M, b)), (w,), (w.cos(),))
    )(x, M),
    "gradient of a vmap": lambda f, *t: grad(lambda *a: vmap(of_one(f), (0, None, 0, None))(*a).sum(), ALL)(*t),
    "gradients of an ensemble": lambda f, *t: vmap(grad(loss(f), ALL))(*(torch.stack([a, a.cos()]) for a in t)),
}


GEOMETRIES: list[dict[str, Any]] = [
    {"stride": (1, 2), "padding": 1, "groups": 2},
    {},
    {"padding": "same", "dilation": (1, 2)},
]
# Seconds each, and made of what the others test in both quick geometries.
SECOND_ORDER = ("forward over reverse", "reverse over forward", "reverse over reverse", "forward over forward")


def is_slow(transform: str, geometry: dict[str, Any]) -> bool:
    return geometry == {} or (transform in SECOND_ORDER and geometry != GEOMETRIES[0])


@pytest.mark.parametrize(
    ("transform", "arguments"),
    [
        pytest.param(name, geometry, marks=[pytest.mark.slow] if is_slow(name, geometry) else [])
        for name in TRANSFORMS
        for geometry in GEOMETRIES
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_a_transform_of_the_op_is_that_of_the_reference(transform: str, arguments: dict[str, Any]) -> None:
    tensors = inputs(arguments.get("groups", 1))

    def transformed(f: Convolution) -> Any:
        return TRANSFORMS[transform](lambda *leaves: f(*leaves, **arguments), *tensors)

    expected = transformed(reference.filtered_conv2d)
    torch.testing.assert_close(transformed(filtered_conv2d), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("transform", ["forward over reverse", "three times by autograd", "per-sample gradients"])
def test_derivatives_are_computed_by_the_formulation_itself(
    name: str, transform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the lower precisions, which some formulations alone take, against the reference in float64."""
    served, formulation = False, FORMULATIONS[name]
    for other in set(FORMULATIONS) - {name}:
        monkeypatch.delitem(FORMULATIONS, other)
    for dtype in (torch.float32, torch.bfloat16):
        x, weight, M, bias = inputs(dtype=dtype)
        if formulation.reasons_against(x, weight, Geometry((1, 1), (1, 1), (1, 1), 1)):
            continue
        served, tensors = True, (x, weight, M.float(), bias)
        exact = tuple(tensor.double() for tensor in tensors)
        actual = TRANSFORMS[transform](lambda *leaves: filtered_conv2d(*leaves, padding=1, formulation=name), *tensors)
        wanted = TRANSFORMS[transform](lambda *leaves: reference.filtered_conv2d(*leaves, padding=1), *exact)
        pairs = zip(tree_leaves(actual), tree_leaves(wanted), strict=True)
        assert all((a - b).norm() / b.norm() < 20 * torch.finfo(dtype).eps for a, b in pairs), dtype
    if not served:
        pytest.skip(f"{name} takes neither precision here")


def test_a_gradient_penalty_has_the_reference_gradient() -> None:
    """R1: the squared norm of dX, differentiated by the parameters."""
    penalties = []
    for f in (filtered_conv2d, reference.filtered_conv2d):
        x, *parameters = (tensor.requires_grad_() for tensor in inputs())
        (dX,) = torch.autograd.grad(f(x, *parameters).sin().sum(), x, create_graph=True)
        dX.square().sum().backward()
        penalties.append([parameter.grad for parameter in parameters])
    torch.testing.assert_close(*penalties, rtol=1e-9, atol=1e-9)


def test_transforms_agree_under_autocast() -> None:
    x, weight, M, bias = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        (per_image,) = vmap(grad(of_one(filtered_conv2d), (1,)), (0, None, 0, None))(x, weight, M, bias)
        (whole,) = grad(loss(filtered_conv2d), (1,))(x, weight, M, bias)
        Y, tangent = jvp(lambda x: filtered_conv2d(x, weight, M), (x,), (x,))
    assert (per_image.dtype, Y.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(per_image.sum(0), whole, rtol=0.05, atol=0.05)
    torch.testing.assert_close(tangent, Y, rtol=0, atol=0)  # without a bias the op is linear


def test_entries_that_share_the_weight_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, M, _ = inputs(dtype=torch.float32)
    batches: list[int] = []
    original = FORMULATIONS["grouped"].forward

    def counted(*arguments: Any) -> Tensor:
        batches.append(len(arguments[0]))
        return original(*arguments)

    monkeypatch.setattr(FORMULATIONS["grouped"], "forward", counted)
    vmap(lambda x, M: filtered_conv2d(x, weight, M, formulation="grouped"))(
        x.expand(5, *x.shape), M.expand(5, *M.shape)
    )
    assert batches == [10]


@pytest.mark.parametrize("mode", ["torch.func", "dual level"])
def test_forward_mode_on_the_bare_op_is_an_error_never_a_zero(mode: str) -> None:
    x, weight, M, _ = inputs()

    def bare(x: Tensor) -> Tensor:
        Y: Tensor = torch.ops.shconv.filtered_conv2d(x, weight, M, [1, 1], [0, 0], [1, 1], 1, "auto")
        return Y

    def in_a_level() -> None:
        with forward_ad.dual_level():
            bare(forward_ad.make_dual(x, x))

    with pytest.raises(NotImplementedError, match=r"shconv\.ops\.filtered_conv2d"):
        jvp(bare, (x,), (x,)) if mode == "torch.func" else in_a_level()


def test_the_bare_op_takes_vmap() -> None:
    x, weight, M, _ = inputs()
    arguments = ([1, 1], [0, 0], [1, 1], 1, "auto")
    Y = vmap(lambda x: torch.ops.shconv.filtered_conv2d(x, weight, M, *arguments))(torch.stack([x, x.cos()]))
    torch.testing.assert_close(Y[1], reference.filtered_conv2d(x.cos(), weight, M), rtol=1e-9, atol=1e-9)
