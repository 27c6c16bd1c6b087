"""Words for two numbers, each made of the very numbers that the sentence prints, so that it cannot contradict them."""

from shconv.audit.checks.side import of


def strength(left_by_first: int, left_by_second: int) -> str:
    """How strong the first attack is beside the second, from how many images are correct under each."""
    if left_by_first == left_by_second:
        return "as strong as"
    return "weaker than" if left_by_first > left_by_second else "stronger than"


def searched(names: str, stood: int, tried: int, broken: int, seen: int, hidden: int) -> str:
    """What searches did to images that survived the gradient attacks, and a second white box to what they broke.

    stood: images on which they could be tried; seen: broken ones that the second white box attacked; hidden: of these
    the ones that survive it.
    """
    if not stood:
        return f"No image was left for {names}, as none survived the gradient attacks"
    if not tried:
        return f"No image was attacked by {names}"
    if not broken:
        return f"{names[0].upper()}{names[1:]} break no image that survived the gradient attacks"
    said = f"{names[0].upper()}{names[1:]} break {of(broken, tried)} that survived the gradient attacks"
    if not seen:
        return f"{said}; no longer white-box attack was tried on these"
    part = "" if seen == broken else f" on {seen} of these"
    return f"{said}; a second, longer white-box attack{part} fails on {hidden}"


def answer(hidden: int, broken: int, seen: int, stood: int, tried: int) -> bool | None:
    """The alarm of a search: None where it attacked no image, or where nothing that it broke was looked at again."""
    if hidden:
        return True
    return None if (stood and not tried) or seen < min(broken, 1) else False
