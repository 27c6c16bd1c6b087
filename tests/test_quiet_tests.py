"""A quiet test waits for those that run, and those that come later wait for it."""

import threading
from pathlib import Path

from quiet_tests import share_of_the_machine


def test_others_share_the_machine_and_a_quiet_one_has_it_alone(tmp_path: Path) -> None:
    order: list[str] = []

    def take(name: str, whole: bool) -> threading.Thread:
        def work() -> None:
            with share_of_the_machine(tmp_path, whole):
                order.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with share_of_the_machine(tmp_path, False):
        take("beside it", False).join(timeout=60)
        assert order == ["beside it"]
        quiet = take("quiet", True)
        quiet.join(timeout=0.2)
        later = take("later", False)
        later.join(timeout=0.2)
        assert order == ["beside it"]
    quiet.join(timeout=60)
    later.join(timeout=60)
    assert order == ["beside it", "quiet", "later"]
