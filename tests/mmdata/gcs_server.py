"""A server of Google Cloud Storage's API that tests start (gcp-storage-emulator); object_store.py is of S3's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "bucket"


@contextmanager
def serving_gcs(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, as long as the context lasts; gcsfs finds the server by its environment."""
    import gcsfs
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    port = server._api._httpd.server_address[1]  # the one that the system chose
    # A connection that gcsfs drops, since it has what it wanted, is no error
    server._api._httpd.handle_error = lambda *args: None
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    patch.setenv("GOOGLE_CLOUD_PROJECT", "tests")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks by gRPC, which the emulator does not speak
    gcsfs.GCSFileSystem.clear_instance_cache()  # of an earlier server, kept by fsspec
    try:
        yield f"gs://{BUCKET}"
    finally:
        gcsfs.GCSFileSystem.clear_instance_cache()
        server.stop()
