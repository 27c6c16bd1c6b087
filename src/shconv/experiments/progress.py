"""What a person sees of the experiments: live bars or a line now and then, and a line for every finished row."""

from typing import Any

from shconv.terminal import Lines


class ExperimentProgress(Lines):
    """On standard error, so that tables on standard output can be piped; show=False is silent."""

    def __init__(self, show: bool = True) -> None:
        super().__init__(show)
        self._nan: dict[tuple[str, int], int] = {}

    def row(self, row: dict[str, Any]) -> None:
        accuracy = "no images" if row["accuracy"] is None else f"accuracy {row['accuracy']:6.1%}"
        rcd = "" if row["rcd_mean"] is None else f"  RCD {row['rcd_mean']:6.2f}"
        of = f" of the paper's {row['wanted']:,}" if row["wanted"] and row["wanted"] != row["n"] else ""
        self.say(f"{row['id']}: {accuracy}{rcd}  {row['n']:,} images{of}  {row['seconds']:.1f} s")
        if outside := row.get("outside"):
            self.say(
                f"warning: {row['attack']} returned {outside:,} of {row['n']:,} images outside its budget or [0, 1], "
                "or with NaN: the clean images count instead"
            )
        key, nan = (row["model"], row["seed"]), row.get("nan", 0)
        if nan > self._nan.get(key, 0):  # than was said before
            self._nan[key] = nan
            self.say(
                f"warning: {row['model']}/seed{row['seed']} returned logits with NaN or infinity on {nan:,} of "
                f"{row['n']:,} images: they count as misclassified"
            )
