"""How well image codecs give pictures back: PSNR and SSIM on centre crops, beside image files of the same size.

The named set is the seven photographs of scikit-image and scikit-learn that no shipped codec was trained on:
astronaut, chelsea, coffee, rocket, motorcycle, china, flower, each its centre 256x256 pixels. A codec is anything with
`encode`, `decode` and `codebooks`, ours or not. Pictures are measured one after the other; none is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.fit.exclude import IMAGES
from pipelines.fit.image_files import FORMATS, nearest_file, published, writable
from tokenizer.codec import Codec

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower")

Shown = list[tuple[str, np.ndarray, float]]  # (what it is, uint8 [H, W, 3], its PSNR in dB)
Show = Callable[[str, np.ndarray, Shown], None]  # of a picture: its name, itself, what came back of it
_Crops = Iterator[tuple[str, np.ndarray | None]]  # (name, crop; None where the file gives none)


def evaluate_image(codec: str | Codec, folder: Path | None = None, size: int = 256) -> dict[str, Any]:
    """Figures of one codec, as `evaluate_images` gives them under "codecs", with its "set"."""
    answer = evaluate_images([codec], folder, size, compare=False)
    return {**answer["codecs"][0], "set": answer["set"]}


def evaluate_images(
    codecs: Sequence[str | Codec],
    folder: Path | None = None,
    size: int = 256,
    *,
    compare: bool = True,
    show: Show | None = None,
    follow: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure codecs on the pictures of a folder, or on the seven photographs where it is None (extra `eval`).

    {"set", "images", "skipped": files too small or broken, "codecs": [{"codec", "images", "psnr_db", "ssim",
    "bits_per_pixel", "distinct_codes", "each": {picture: figures}, and of codecs with levels "level_bits": the sum over
    channels of the entropy of a channel's levels, "most_level_bits": what it could be}], and with `compare` "files":
    [{"file", "nearest_to": codec, "psnr_db", "ssim", "bits_per_pixel"}], "not_written": formats that this Pillow does
    not write, "published": [...]}. A picture's file has the quality whose size, header counted, is nearest to what the
    codec takes for it. A codec that is given twice is measured once. `show` gets each picture, `follow` is told (done,
    of how many).
    """
    kinds = writable() if compare else []
    tried = [_Trial(name, codec, kinds) for name, codec in _opened(codecs).items()]
    crops, total = _crops(folder, size)
    images = 0
    for done, (name, picture) in enumerate(crops, 1):
        if picture is not None:
            images += 1
            shown = [entry for trial in tried for entry in trial.add(name, picture)]
            if show is not None:
                show(name, picture, shown)
        if follow is not None:
            follow(done, total)
    if not images:
        raise ValueError(f"no pictures of at least {size}x{size} pixels in {folder}; give another folder or --size")
    answer: dict[str, Any] = {
        "set": "skimage and sklearn photographs" if folder is None else folder.name,
        "images": images,
        "skipped": total - images,
        "codecs": [trial.figures() for trial in tried],
    }
    if compare:
        answer["files"] = [row for trial in tried for row in trial.file_rows()]
        answer["not_written"] = [kind for kind in FORMATS if kind not in kinds]
        answer["published"] = published()
    return answer


class _Scores:
    """What has been measured of one codec, or of one kind of file beside it."""

    def __init__(self) -> None:
        self.each: dict[str, dict[str, float]] = {}
        self._bits: list[float] = []  # a pixel, of each picture

    def add(self, name: str, picture: np.ndarray, back: np.ndarray, bits: float) -> float:
        from skimage.metrics import structural_similarity

        similar = structural_similarity(picture, back, channel_axis=-1, data_range=255)
        quality = psnr(picture, back)
        self.each[name] = {"psnr_db": round(quality, 3), "ssim": round(float(similar), 4)}
        self._bits.append(bits / picture[..., 0].size)
        return quality

    def means(self) -> dict[str, float]:
        return {
            "psnr_db": round(float(np.mean([v["psnr_db"] for v in self.each.values()])), 3),
            "ssim": round(float(np.mean([v["ssim"] for v in self.each.values()])), 4),
            "bits_per_pixel": round(float(np.mean(self._bits)), 4),
        }


class _Trial:
    """One codec, and the image files beside it."""

    def __init__(self, name: str, codec: Codec, kinds: Sequence[str]) -> None:
        self._name, self._codec = name, codec
        self._scores = _Scores()
        self._files = {kind: _Scores() for kind in kinds}
        self._seen: list[np.ndarray] = []

    def add(self, name: str, picture: np.ndarray) -> Shown:
        codes = self._codec.encode(picture)
        back = self._codec.decode(codes)
        if back.shape != picture.shape:
            raise ValueError(f"{self._name} gives {back.shape} for {picture.shape}: give a --size that it keeps")
        bits = len(codes.codes) * float(np.log2(self._codec.codebooks).sum())
        self._seen.append(codes.codes)
        shown = [(self._name, back, self._scores.add(name, picture, back, bits))]
        for kind, scores in self._files.items():
            data, back = nearest_file(kind, picture, bits / 8)
            quality = scores.add(name, picture, back, 8.0 * len(data))
            shown.append((f"{kind}, {8 * len(data) / picture[..., 0].size:.3f} bpp", back, quality))
        return shown

    def figures(self) -> dict[str, Any]:
        from tokenizer.nets.fsq import level_entropy

        codes, levels = np.concatenate(self._seen), tuple(getattr(self._codec, "levels", ()))
        figures: dict[str, Any] = {"codec": self._name, "images": len(self._seen), **self._scores.means()}
        figures["distinct_codes"] = sum(len(np.unique(column)) for column in codes.T)
        if levels:
            figures["level_bits"] = round(sum(level_entropy(column, levels) for column in codes.T), 3)
            figures["most_level_bits"] = round(codes.shape[1] * float(np.log2(levels).sum()), 3)
        return {**figures, "each": self._scores.each}

    def file_rows(self) -> list[dict[str, Any]]:
        return [{"file": kind, "nearest_to": self._name, **found.means()} for kind, found in self._files.items()]


def _opened(codecs: Sequence[str | Codec]) -> dict[str, Codec]:
    """Each codec once, by its name; another one of the same name (a file of another fit) also by what was given."""
    opened: dict[str, Codec] = {}
    for given in codecs:
        codec = _open(given)
        name = f"{codec.name}@{codec.revision}"
        if opened.get(name, codec).fingerprint != codec.fingerprint:
            name += f" {given if isinstance(given, str) else codec.fingerprint[:8]}"
        opened[name] = codec
    return opened


def _open(codec: str | Codec) -> Codec:
    from tokenizer.codecs import open_codec

    codec = open_codec(codec) if isinstance(codec, str) else codec
    if codec.kind != "image":
        raise ValueError(f"{codec.name} is a codec of {codec.kind}: `mmdata evaluate {codec.kind}` measures it")
    return codec


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 pictures, dB; equal pictures give 99."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def photographs(size: int = 256) -> Iterator[tuple[str, np.ndarray]]:
    """The named set: (name, uint8 [size, size, 3]), from the files inside the two packages, nothing fetched."""
    paths = {path.stem: path for folder in photo_folders() for path in sorted(folder.iterdir())}
    for name in PHOTOS:
        path = paths.get(name) or paths.get(f"{name}_left")
        picture = None if path is None else read_picture(path)
        if picture is None:
            raise ValueError(f"the picture {name!r} is not in the installed scikit-image or scikit-learn")
        if min(picture.shape[:2]) < size:
            raise ValueError(f"the photograph {name!r} is smaller than {size}x{size} pixels; give a smaller --size")
        yield name, centre_crop(picture, size)


def photo_folders() -> list[Path]:
    """The folders of pictures of scikit-image and scikit-learn; ValueError names the extra when they are missing."""
    import importlib.util

    folders = []
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ValueError(f"{package} is not installed: pip install 'mmdata[eval]'")
        folders.append(Path(spec.origin).parent / inside)
    return folders


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size, 3] from the middle."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def read_picture(path: Path) -> np.ndarray | None:
    """uint8 [H, W, 3], upright, over white; None for what does not open as a picture."""
    from pipelines.ingest.decode_image import decode_image
    from pipelines.ingest.media import MediaError

    try:
        return decode_image(path)
    except MediaError:
        return None


def _crops(folder: Path | None, size: int) -> tuple[_Crops, int]:
    """(the crops, how many files they are of): of a folder each picture, in order of path."""
    if folder is None:
        return photographs(size), len(PHOTOS)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    return ((path.relative_to(folder).as_posix(), _crop_of(path, size)) for path in paths), len(paths)


def _crop_of(path: Path, size: int) -> np.ndarray | None:
    picture = read_picture(path)
    return None if picture is None or min(picture.shape[:2]) < size else centre_crop(picture, size)
