"""The same way with S3 in the place of the disk; API and worker are told by their environment alone."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.farms import running
from tests.s3.servers import ACCESS_KEY, SECRET_KEY
from tests.s3.servers import running as s3_server

pytestmark = pytest.mark.xdist_group("farm")


def test_results_rest_in_s3_and_links_lead_there(tmp_path: Path) -> None:
    server_dir = tmp_path / "s3"
    server_dir.mkdir()
    with s3_server("ministack", server_dir) as server:
        environment = {
            "S3_BUCKET": "fluxfarm-e2e",
            "S3_ENDPOINT_URL": server.url,
            "S3_PUBLIC_ENDPOINT_URL": server.url.replace("127.0.0.1", "localhost"),
            "S3_ACCESS_KEY_ID": ACCESS_KEY,
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        with running(tmp_path / "data", **environment) as farm:
            record = farm.finished(farm.post({"prompt": "to S3", "size": "96x64"}).json()["aiRecord"]["uuid"])
            assert record["status"] == "SUCCESS"
            link = httpx.URL(record["temporaryUrl"])
            assert link.host == "localhost"
            assert "X-Amz-Signature" in link.params
            reply = httpx.get(link)
            assert reply.headers["content-type"] == "image/webp"
            with Image.open(io.BytesIO(reply.content)) as image:
                assert image.size == (96, 64)
            assert httpx.get(link.copy_set_param("X-Amz-Signature", "0" * 64)).status_code == 403
            assert not list((farm.data_dir / "objects").rglob("*.webp"))
            assert httpx.delete(record["links"]["self"], headers=farm.headers).status_code == 204
            assert httpx.get(link).status_code == 404
