"""How well probabilities tell good texts from bad ones: shares, accuracy, area under the ROC curve, thresholds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

KEPT = (0.99, 0.95, 0.9, 0.75, 0.5)  # shares of good texts for which a threshold is said


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """The probability that a good text has the higher value than a bad one; equal values count half.

    >>> auc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    values = np.concatenate([good, bad])
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # from 1; equal values share the mean of theirs
    above = ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2
    return float(above / (len(good) * len(bad)))


def both_figures(good: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """Of probabilities of good and of bad texts; accuracy is the mean of that of both labels."""
    if not len(good) or not len(bad):
        return {"good": len(good), "bad": len(bad)}
    figures = {
        "good": len(good),
        "bad": len(bad),
        "accuracy": round(float((good >= 0.5).mean() + (bad < 0.5).mean()) / 2, 4),
        "auc": round(auc(good, bad), 4),
    }
    for share in KEPT:
        least = threshold(good, share)
        figures[f"least_for_{share * 100:g}%_of_good"] = round(least, 4)
        figures[f"bad_kept_at_{share * 100:g}%_of_good"] = round(float((bad >= least).mean()), 4)
    return figures


def threshold(good: np.ndarray, share: float) -> float:
    """The highest value that keeps at least this share of them."""
    ordered = np.sort(good)[::-1]
    return float(ordered[int(np.ceil(share * len(ordered))) - 1])


def set_figures(values: np.ndarray, good: bool) -> dict[str, float]:
    """Of one set: how many, the median, and the share that falls on its side of 0.5."""
    right = (values >= 0.5) == good
    return {
        "texts": len(values),
        "median": round(float(np.median(values)), 4),
        "accuracy": round(float(right.mean()), 4),
    }


def print_classifier(figures: Mapping[str, Mapping[str, float]]) -> None:
    """A row a set, and under them the figures of all."""
    from pipelines.look.tables import console, plain_table

    table = plain_table("", "texts", "median", "right at 0.5")
    for name, row in figures.items():
        if "texts" in row:
            table.add_row(name, f"{row['texts']:,}", f"{row['median']:.3f}", f"{row['accuracy']:.1%}")
    console().print(table)
    table = plain_table("", "good", "bad", "right at 0.5", "AUC", *(f"least for {share:.0%}" for share in KEPT))
    for name, row in figures.items():
        if "auc" in row:
            cells = (
                f"{row[f'least_for_{share * 100:g}%_of_good']:.3f} ({row[f'bad_kept_at_{share * 100:g}%_of_good']:.1%})"
                for share in KEPT
            )
            both = (f"{row['good']:,}", f"{row['bad']:,}", f"{row['accuracy']:.1%}", f"{row['auc']:.4f}")
            table.add_row(name, *both, *cells)
    console().print(table)
    console().print(
        "least for 90%: the probability that keeps 90% of the good texts (and the share of bad ones with them)"
    )
