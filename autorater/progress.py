"""Progress bars of judging, reading and scoring."""

from tqdm.auto import tqdm


def progress_bar(total: int, desc: str, unit: str, show: bool, initial: int = 0) -> tqdm:
    """A bar that is gone when it is done; hidden without a terminal, or if it is not to `show`."""
    return tqdm(total=total, initial=initial, desc=desc, unit=unit, disable=None if show else True, leave=False)
