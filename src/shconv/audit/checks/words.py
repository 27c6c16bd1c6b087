"""Words for two numbers, each made of the very numbers that the sentence prints, so that it cannot contradict them."""

from shconv.audit.checks.side import of


def strength(left_by_first: int, left_by_second: int) -> str:
    """How strong the first attack is beside the second, from how many images each leaves right."""
    if left_by_first == left_by_second:
        return "as strong as"
    return "weaker than" if left_by_first > left_by_second else "stronger than"


def searched(names: str, stood: int, tried: int, broken: int, seen: int, hidden: int) -> str:
    """What searches did to images that gradients left standing, and a second white box to what they broke.

    stood: images on which they could be tried; seen: broken ones that the second white box came to; hidden: of these
    the ones that it leaves standing.
    """
    if not stood:
        return f"Gradients left no image standing for {names}"
    if not tried:
        return f"No image met {names}"
    if not broken:
        return f"{names[0].upper()}{names[1:]} break no image that gradients left standing"
    said = f"{names[0].upper()}{names[1:]} break {of(broken, tried)} that gradients left standing"
    if not seen:
        return f"{said}; no longer white-box attack came to these"
    part = "" if seen == broken else f" on {seen} of these"
    return f"{said}; a second and longer white-box attack{part} leaves {hidden} standing"


def answer(hidden: int, broken: int, seen: int, stood: int, tried: int) -> bool | None:
    """The alarm of a search: None where it met no image, or where nothing that it broke was looked at again."""
    if hidden:
        return True
    return None if (stood and not tried) or seen < min(broken, 1) else False
