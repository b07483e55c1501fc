"""What classes are called where they are counted, bounded whatever a model calls them."""

MOST_NAMES = 80  # of classes in one table
LONGEST_NAME = 64  # characters
OTHER = "other"


def called(name: str) -> str:
    """Cut a name to what is told of it: four bytes a character, at most."""
    return "".join(c if c.isprintable() else "?" for c in name[:LONGEST_NAME])


class Table:
    """Which classes have a row: the first that are seen, for good; all others share one.

    Were these the most frequent ones at each look, a count would move from row to row, and what
    others call a counter would shrink.
    """

    def __init__(self) -> None:
        self._rows = {OTHER}  # it may be a class as well

    def row(self, name: str) -> str:
        """Say in which row a class is counted."""
        name = called(name)
        if name in self._rows:
            return name
        if len(self._rows) < MOST_NAMES:
            self._rows.add(name)
            return name
        return OTHER
