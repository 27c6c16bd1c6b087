"""shconv report: draw a run's tables, figures and page again, without a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from shconv import report
from shconv.commands.parser import POSITIONAL
from shconv.terminal import console


@dataclass(frozen=True)
class Report:
    """Print the tables of a run folder and write its tables, figures and page again."""

    run_folder: Annotated[Path, POSITIONAL]
    """The folder that reproduce or evaluate wrote."""
    figures: tuple[Literal["pdf", "svg", "png"], ...] = ("svg", "png")
    """File types of each figure; pdf and svg are vector graphics with fonts."""
    tables: tuple[Literal["md", "csv", "tex"], ...] = ("md", "csv")
    """File types of each table; tex needs LaTeX with booktabs."""

    def run(self) -> None:
        page = report.write(self.run_folder, self.figures, self.tables, console())
        print(f"The report: {page}")
