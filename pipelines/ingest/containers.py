"""Opening audio and video containers: the rules that PyAV is given for every untrusted file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.ingest.media import CANNOT_DECODE, OUT_OF_MEMORY, Limits, MediaError, one_line, opened

# Containers that hold their own media. Playlists (hls, dash, concat, sdp ...), which name other files and addresses,
# are not among them: a file called .mp4 whose content is a playlist must reach neither the disk nor the network.
DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,gif,h263,h264,hevc,ivf,m4v,"
    "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegvideo,mxf,nut,ogg,rm,tta,vob,w64,wav,wv"
)


@contextmanager
def open_container(medium: bytes | Path, limits: Limits) -> Iterator[Any]:
    """An `av` input container. Errors of the file, here or in the body of the `with`, become MediaError."""
    import av

    with opened(medium, limits) as file:
        try:
            options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "none"} | _by_content(file)
            with av.open(file, mode="r", options=options, metadata_errors="replace") as container:
                yield container
        except MediaError:
            raise
        except MemoryError as error:  # FFmpeg's own too
            raise MediaError(OUT_OF_MEMORY, _words(error)) from None
        except (av.error.FFmpegError, ValueError, OverflowError) as error:
            raise MediaError(CANNOT_DECODE, _words(error)) from None


def _by_content(file: BinaryIO) -> dict[str, str]:
    """Options for what the first bytes say. A WAV file's header says all: without these FFmpeg reads the first 5 MB to
    guess at what they might be, then 8 kB at a time (11 ms instead of 3 for 10 s of 48 kHz)."""
    head = file.read(12)
    file.seek(0)
    is_wave = head[:4] == b"RIFF" and head[8:] == b"WAVE"
    return {"probesize": "32768", "max_size": "32768"} if is_wave else {}


def start_seconds(container: Any) -> float:
    """The presentation time at which the file begins; times are counted from it."""
    return 0.0 if container.start_time is None else container.start_time / 1e6


class Patience:
    """Counts packets that do not decode. A damaged file keeps what can be read, as long as most of it can."""

    def __init__(self) -> None:
        self.packets = 0
        self.bad = 0
        self.last = ""

    def decoded(self, packet: Any) -> list[Any]:
        """The frames of a packet; none where it does not decode."""
        import av

        self.packets += 1
        try:
            return list(packet.decode())
        except MemoryError:
            raise
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.bad += 1
            self.last = _words(error)
            return []

    def check(self, num_frames: int) -> None:
        """Raises where nothing came out, or where more than a tenth of the packets failed."""
        if self.bad and (num_frames == 0 or self.bad * 10 > self.packets):
            raise MediaError(CANNOT_DECODE, f"{self.bad} of {self.packets} packets: {self.last}")


def _words(error: BaseException) -> str:
    """PyAV's message without the file object's name, which may hold an address or a path of this machine."""
    return one_line(error).split(": '")[0]
