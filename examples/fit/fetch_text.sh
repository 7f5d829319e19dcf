#!/bin/sh
# Unpack the Debian packages whose text trains text-spm16k, each under its own name. Needs apt-get update once before.
#   sh examples/fit/fetch_text.sh FOLDER
set -eu
mkdir -p "$1/deb" && cd "$1/deb"
for package in \
    debian-reference-en \
    fortunes \
    gnome-user-docs \
    manpages \
    manpages-cs \
    manpages-da \
    manpages-de \
    manpages-dev \
    manpages-el \
    manpages-es \
    manpages-fi \
    manpages-fr \
    manpages-hu \
    manpages-it \
    manpages-ja \
    manpages-nl \
    manpages-pl \
    manpages-pt-br \
    manpages-ro \
    manpages-ru \
    manpages-sv \
    manpages-tr \
    manpages-uk \
    manpages-vi \
    manpages-zh \
    python3.11-doc \
    python3.11-examples; do
    apt-get download -qq "$package"
    dpkg-deb -x "$package"_*.deb "../$package"
done
