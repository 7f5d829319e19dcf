#!/bin/sh
# Unpack the Debian packages whose text quality-en was fitted on, each under its own name (some 300 MB are fetched).
# Needs apt-get update once before.
#   sh examples/fit/fetch_quality_text.sh FOLDER
set -eu
mkdir -p "$1/deb" && cd "$1/deb"
for package in \
    anarchism \
    apache2-doc \
    aptitude-doc-en \
    cmake-doc \
    crossfire-doc \
    debian-edu-doc-en \
    debian-faq \
    debian-handbook \
    debian-history \
    debian-reference-en \
    debmake-doc \
    developers-reference \
    dict-devil \
    dict-foldoc \
    dict-vera \
    fontforge-doc \
    foomatic-db \
    git-doc \
    gnome-user-docs \
    gnugo \
    harden-doc \
    hwdata \
    hydrogen-doc \
    ieee-data \
    inkscape-tutorials \
    iso-codes \
    jargon-text \
    junit4-doc \
    kstars \
    libcairo2-doc \
    libcommons-io-java-doc \
    libcommons-lang3-java-doc \
    libglib2.0-doc \
    libgtk-3-doc \
    libstdc++-12-doc \
    live-manual-html \
    lynx-common \
    maint-guide \
    manpages \
    manpages-dev \
    mate-user-guide \
    mercurial-common \
    mh-book \
    nethack-common \
    pci.ids \
    perl-doc \
    phylip-doc \
    polygen-data \
    postgresql-doc-15 \
    privoxy \
    python-django-doc \
    python3.11-doc \
    r-doc-html \
    rust-doc \
    solfege-doc \
    spamassassin \
    sqlite3-doc \
    tcl8.6-doc \
    unicode-data \
    usb.ids \
    vim-doc \
    wamerican \
    zsh-doc; do
    apt-get download -qq "$package"
    dpkg-deb -x "$package"_*.deb "../$package"
done
