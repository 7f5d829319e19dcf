"""Video as timed frames of an image codec."""

import numpy as np
import pytest

from tokenizer.codec import Codes, Shape
from tokenizer.video import join_frames, sample_times, split_frames


def test_frames_are_kept_at_the_rate_until_there_are_too_many() -> None:
    assert sample_times(3.2, 1.0, 16) == [0, 1, 2, 3]
    assert sample_times(3.0, 1.0, 16) == [0, 1, 2]
    assert sample_times(10.0, 1.0, 4) == [0, 2.5, 5, 7.5]
    assert sample_times(0.0, 2.0, 4) == [0]
    with pytest.raises(ValueError, match="fps"):
        sample_times(1.0, 0.0, 4)


def test_joined_frames_split_again() -> None:
    frames = [Codes(np.full((6, 1), i, np.int32), Shape(6, 1, 1, 2, 3)) for i in range(4)]
    video = join_frames(frames, np.arange(4) / 2)
    assert video.shape == Shape(24, 1, 4, 2, 3) and video.times.tolist() == [0, 0.5, 1, 1.5]
    for a, b in zip(frames, split_frames(video)):
        np.testing.assert_array_equal(a.codes, b.codes)
        assert a.shape == b.shape


def test_frames_of_two_grids_are_refused() -> None:
    frames = [
        Codes(np.zeros((6, 1), np.int32), Shape(6, 1, 1, 2, 3)),
        Codes(np.zeros((6, 1), np.int32), Shape(6, 1, 1, 3, 2)),
    ]
    with pytest.raises(ValueError, match="one grid"):
        join_frames(frames, np.arange(2))
