"""Datasets on a real S3-compatible server: the batches of the local folder, whatever the network does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmdata
import mmdata.remote
from mmdata.remote import Retry
from tests.mmdata.object_store import BUCKET, ENVIRONMENT, ObjectStore, serving
from tests.mmdata.toy_data import toy_samples, write_source, write_toy_dataset
