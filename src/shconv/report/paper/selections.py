"""Which images Tables 2 to 4 are about, in sentences: how many, how they spread over the classes, what that can say."""

from collections.abc import Container, Iterator

from shconv.numbers import counted
from shconv.report.folder.run import Run, Selection
from shconv.report.numbers import count, pct
from shconv.report.paper.statement import Statement
from shconv.report.published import network_name

CONFIDENT = 0.9  # the paper's limit
FEW = 50  # images: an accuracy over fewer is known to ten points at best
MOSTLY = 0.5  # of the images in one class


def read_selections(run: Run, counts: Container[int] | None = None) -> Iterator[Statement]:
    """One sentence for each selection of a pair, or for those of so many images; one that stands on few images or on
    one class speaks against its numbers."""
    seen = set()
    for each in run.selections:
        said = selection_sentence(each, len(run.data.classes))
        if said.text not in seen and (counts is None or each.found in counts):
            seen.add(said.text)
            yield said


def selection_sentence(each: Selection, classes: int) -> Statement:
    """How the images spread over the classes, and for what they are too few."""
    names = f"{' and '.join(map(network_name, each.pair))}, seed {each.seed}"
    limit = f"confidence above {each.min_confidence:g}"
    if not each.found:
        highest = "" if each.highest_confidence is None else f" (the highest is {each.highest_confidence:.2f})"
        return Statement(
            f"{names}: no image is classified correctly with {limit}{highest}, so Tables 2 to 4 have no images. "
            "--min-confidence lowers the limit.",
            True,
        )
    images = counted(each.found, "image")
    said = [f"{names}: {images} classified correctly with {limit}"]
    warn = each.found < FEW
    if each.classes and classes:
        largest, most = max(each.classes.items(), key=lambda item: item[1])
        said[0] += f", of {count(len(each.classes))} of the {count(classes)} classes"
        share = most / each.found
        if len(each.classes) == 1:
            said.append(f"All are of one class, {largest!r}, and say nothing about the other classes")
            warn = True
        elif share > MOSTLY and classes > 2:
            said.append(f"{pct(share)} are of one class, {largest!r}, which dominates the result")
            warn = True
        else:
            said[0] += f"; at most {count(most)} of one class ({largest!r})"
    if each.found < FEW:
        said.append(f"{images} {'is' if each.found == 1 else 'are'} too few to say much")
    if warn:
        said.append("An accuracy on them, also a worst case, is not the accuracy on the data set")
    return Statement(f"{'. '.join(said)}.", warn)


def selected(run: Run) -> str:
    """The sentence of a caption on the images that a table is about."""
    limits = sorted({each.min_confidence for each in run.selections}) or [CONFIDENT]
    words = " or ".join(f"{limit:g}" for limit in limits)
    return (
        f"Images that both networks of a pair (or the one network alone) classify correctly with confidence above "
        f"{words}: a part of the test images, not a random sample."
    )


def clean_images(run: Run) -> str:
    """Of which images Table 1 is."""
    counts = sorted({row.n for row in run.rows if row.experiment == "table1" and row.n})
    whole = run.data.test_images
    if not counts:
        return "on test images"
    if counts == [whole]:
        return "on the whole test split"
    words = " or ".join(count(each) for each in counts)
    return f"on {words} images of the test split" + (f", which has {count(whole)}" if whole else "")
