"""Checks that every task makes of its numbers of points."""

from morphax._checks import check_count


def check_points(train_points: int, test_points: int, washout: int) -> None:
    """Refuse empty parts, and a washout that leaves no training point."""
    check_count("train_points", train_points, 1)
    check_count("test_points", test_points, 1)
    check_count("washout", washout, 0, train_points - 1)
