"""The numbers of a chart's points: each near its own point, on nothing else, inside the frame."""

import math

from hypothesis import given
from hypothesis import strategies as st

from shconv.results.labels import DIGIT, FAR, HEIGHT, Box, Marked, led, placed

FRAME = Box(0.0, 0.0, 560.0, 350.0)


def boxes(points: list[Marked]) -> list[Box]:
    middles = placed(points, FRAME)
    return [Box.around(*at, DIGIT * len(p.text), HEIGHT) for at, p in zip(middles, points, strict=True)]


def at(x: float, y: float, number: int) -> Marked:
    return Marked(x, y, y + 15, y - 15, str(number))


@given(st.lists(st.tuples(st.floats(0, 560), st.floats(15, 335)), min_size=1, max_size=18))
def test_labels_stay_in_the_frame_and_near_their_points(places: list[tuple[float, float]]) -> None:
    points = [at(*place, number) for number, place in enumerate(places, 1)]
    for label, point in zip(boxes(points), points, strict=True):
        assert FRAME.left <= label.left <= label.right <= FRAME.right
        assert FRAME.top <= label.top <= label.bottom <= FRAME.bottom
        assert (
            math.dist(((label.left + label.right) / 2, (label.top + label.bottom) / 2), (point.x, point.y)) < FAR + 20
        )


def test_no_label_covers_a_point_a_line_or_another_label() -> None:
    points = [at(250 + 9 * (number % 6), 340 - 4 * (number // 6), number) for number in range(1, 19)]
    labels = boxes(points)
    drawn = [box for point in points for box in point.drawn]
    for number, label in enumerate(labels):
        assert all(label.shared(box) == 0 for box in drawn)
        assert all(label.shared(other) == 0 for other in labels[number + 1 :])


def test_a_line_leads_only_to_a_label_that_had_to_stand_away() -> None:
    alone, (place,) = at(300, 200, 7), placed([at(300, 200, 7)], FRAME)
    assert place[0] < 300
    assert place[1] == 200
    assert not led(alone, place)
    crowd = [at(300, 200, number) for number in range(1, 19)]
    assert any(led(point, place) for point, place in zip(crowd, placed(crowd, FRAME), strict=True))
