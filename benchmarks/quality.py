"""How fast a quality classifier reads: `python benchmarks/quality.py [NAME_OR_FILE]`, by CPU time.

Documents are the texts of GIMP's manual and of the science fortunes, some kB each, over and over for about 3 seconds.
"""

import sys
import time
from pathlib import Path

from pipelines.curate.quality import named, opened
from pipelines.fit.classifier_texts import page_text, pieces_of

MEDIA = Path(__file__).resolve().parents[1] / "examples" / "media"


def main() -> None:
    score = opened(named(sys.argv[1] if len(sys.argv) > 1 else "quality-en", Path(), "classifier")).score
    texts = [page_text(path.read_bytes()) for path in sorted((MEDIA / "web" / "en").glob("*.html"))]
    texts += pieces_of((MEDIA / "text" / "science.txt").read_text("utf-8"), 4000)
    done, size, begun = 0, 0, time.process_time()
    while (seconds := time.process_time() - begun) < 3:
        text = texts[done % len(texts)]
        score(text)
        done, size = done + 1, size + len(text.encode())
    print(
        f"{done / seconds:,.0f} documents/s, {size / seconds / 1e6:.2f} MB/s of CPU time; mean {size / done:,.0f} bytes"
    )


if __name__ == "__main__":
    main()
