"""Progress bars of judging, reading and scoring."""

from contextlib import AbstractContextManager, nullcontext

from tqdm.auto import tqdm


def progress_bar(
    total: int, desc: str, unit: str, show: bool | tqdm, initial: int = 0
) -> AbstractContextManager[tqdm]:
    """A bar that is gone when it is done; hidden without a terminal, or if it is not to `show`.

    A bar in place of `show` is that of a longer work: it is used, and stays open.
    """
    if isinstance(show, tqdm):
        return nullcontext(show)
    return tqdm(total=total, initial=initial, desc=desc, unit=unit, disable=None if show else True, leave=False)
