"""What of a network is SHC, what is not and why, and what that costs in parameters, as a table."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from shconv.arguments import checked
from shconv.conversion.layers import reason_against
from shconv.conversion.where import Where, check_network, is_3x3, pick
from shconv.layers import SHConv2d

HEADS = ("name", "module", "kernel", "in", "out", "groups", "", "parameters", "")


@dataclass(frozen=True)
class ConvolutionRow:
    """One convolution: parameters before and after conversion are its own and its hypernetwork's."""

    name: str
    module: str
    kernel: str
    in_channels: int
    out_channels: int
    groups: int
    converted: bool
    reason: str
    before: int
    after: int


@dataclass(frozen=True)
class ConversionReport:
    """A network's convolutions, and the parameters of the whole network with and without its hypernetworks."""

    rows: tuple[ConvolutionRow, ...]
    before: int
    after: int

    @property
    def growth(self) -> float:
        """Parameters that the hypernetworks add, as a share of the network without them."""
        return self.after / self.before - 1 if self.before else 0.0

    def __str__(self) -> str:
        lines = [HEADS, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*map(str.rstrip, table), self.total])

    @property
    def total(self) -> str:
        """The whole network in a line."""
        converted = sum(row.converted for row in self.rows)
        total = f"{converted} of {len(self.rows)} convolutions are SHC; parameters {self.before:,} -> {self.after:,}"
        return f"{total} ({self.growth:+.1%})"

    def _repr_html_(self) -> str:
        """A table, for notebooks: converted convolutions in bold."""
        head = "".join(f"<th>{each}</th>" for each in HEADS)
        lines = []
        for row in self.rows:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
            style = ' style="font-weight: bold"' if row.converted else ""
            lines.append(f"<tr{style}>{cells}</tr>")
        body = "".join(lines)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{html.escape(self.total)}</p>"


@checked
def conversion_report(model: nn.Module, where: Where = is_3x3) -> ConversionReport:
    """A row for every convolution of a network, converted or not, with the reason where not.

    For a vanilla network it is a forecast: where= marks what to_shc would select, and what of that it would refuse.
    `str(report)` is a table; `report.rows`, `report.before`, `report.after` and `report.growth` are its numbers.
    """
    check_network(model)
    picked = pick(model, where)
    rows = tuple(_row(n, m, m in picked) for n, m in model.named_modules() if _is_convolution(m))
    hyper = {p for m in model.modules() if isinstance(m, SHConv2d) for p in m.hyper.parameters()}
    after = sum(p.numel() for p in model.parameters() if not isinstance(p, nn.UninitializedParameter))
    return ConversionReport(rows, after - sum(p.numel() for p in hyper), after)


def _row(name: str, module: Any, picked: bool) -> ConvolutionRow:
    converted = isinstance(module, SHConv2d)
    sizes = [p.numel() for p in module.parameters() if not isinstance(p, nn.UninitializedParameter)]
    added = sum(p.numel() for p in module.hyper.parameters()) if converted else 0
    kernel = module.kernel_size if isinstance(module.kernel_size, Sequence) else (module.kernel_size,)
    if converted:
        reason = ""
    elif reason := reason_against(module):
        reason = f"refused: {reason}" if picked else reason
    else:
        reason = "where= picks it" if picked else "where= does not pick it"
    return ConvolutionRow(
        name,
        type(module).__name__,
        "x".join(map(str, kernel)),
        module.in_channels,
        module.out_channels,
        getattr(module, "groups", 1),
        converted,
        reason,
        sum(sizes) - added,
        sum(sizes),
    )


def _is_convolution(module: nn.Module) -> bool:
    """nn.Conv2d and what looks like one: transposed, quantised, mixtures of experts."""
    return "Conv" in type(module).__name__ and all(
        hasattr(module, each) for each in ("kernel_size", "in_channels", "out_channels")
    )


def _cells(row: ConvolutionRow) -> tuple[str, ...]:
    channels = (str(row.in_channels), str(row.out_channels), str(row.groups))
    parameters = f"{row.before:,} -> {row.after:,}" if row.converted else f"{row.before:,}"
    status = "SHC" if row.converted else "left"
    return (row.name or "(itself)", row.module, row.kernel, *channels, status, parameters, row.reason)
