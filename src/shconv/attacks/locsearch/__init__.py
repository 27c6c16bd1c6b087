"""LocSearchAdv, the paper's attack without gradients (section 2.3): the attack, its rules, search, pixels and trace."""

from shconv.attacks.locsearch.attack import LocSearchAdv
from shconv.attacks.locsearch.trace import LocSearchResult, LocSearchTrace

__all__ = ["LocSearchAdv", "LocSearchResult", "LocSearchTrace"]
