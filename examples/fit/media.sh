#!/bin/bash
# Fetch what the shipped codecs were trained on: Debian packages (bookworm, main), unpacked under their names.
# usage: media.sh DEST [images|audio]      needs apt-get, dpkg-deb, python3; run `apt-get update` once before.
# then:  MMDATA_FIT_MEDIA=DEST mmdata fit image --config examples/fit/image-fsq16.toml --out OUT
# Each package's licences are in DEST/PACKAGE/usr/share/doc/PACKAGE/copyright.
set -euo pipefail
dest=${1:?folder to write to}
what=${2:-all}
images="mate-backgrounds plasma-workspace-wallpapers ukui-wallpapers lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
  opencv-doc tuxpaint-stamps-default gimp-help-en kphotoalbum palapeli-data gcompris-qt-data redeclipse-data
  supertuxkart-data"
audio="asterisk-core-sounds-en-g722 asterisk-core-sounds-es-g722 asterisk-core-sounds-fr-g722
  asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722 fillets-ng-data fillets-ng-data-cs klettres-data
  tuxpaint-stamps-default sonic-pi-samples ktuberling-data wesnoth-1.16-music asterisk-moh-opsound-wav"
case $what in images) packages=$images ;; audio) packages=$audio ;; *) packages="$images $audio" ;; esac

mkdir -p "$dest"
cd "$dest"
for package in $packages; do
    [ -d "$package" ] && continue
    apt-get download -qq "$package"
    dpkg-deb -x "$package"_*.deb "$package.part"
    mv "$package.part" "$package"
    rm "$package"_*.deb
done

# Qt's resource files hold WebP pictures as they are: from the mark RIFF, for as many bytes as follow it
if [ -d gcompris-qt-data ] && [ ! -d gcompris-qt-data/pictures ]; then
    python3 - gcompris-qt-data/usr/share/gcompris-qt/rcc gcompris-qt-data/pictures <<'PYTHON'
import struct, sys
from pathlib import Path

for name in ("explore_monuments", "categorization", "explore_world_animals", "explore_farm_animals"):
    data, out = (Path(sys.argv[1]) / f"{name}.rcc").read_bytes(), Path(f"{sys.argv[2]}.part") / name
    out.mkdir(parents=True)
    at = data.find(b"RIFF")
    while at >= 0:
        size = struct.unpack_from("<I", data, at + 4)[0] + 8
        if data[at + 8 : at + 12] == b"WEBP":
            (out / f"{len(list(out.iterdir())):03}.webp").write_bytes(data[at : at + size])
            at += size
        at = data.find(b"RIFF", at + 1)
Path(f"{sys.argv[2]}.part").rename(sys.argv[2])
PYTHON
fi
