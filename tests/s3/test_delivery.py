"""The delivery of a campaign into a bucket of the customer's own, on real S3 servers; boto3 reads what arrived."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import boto3
import pytest
from pydantic import SecretStr

from fluxfarm.bucket import Bucket
from fluxfarm.campaigns.uploading import upload
from fluxfarm.errors import FluxfarmError, Forbidden, InvalidField, NotFound, StoreUnavailable
from fluxfarm.settings import Settings
from tests.s3.servers import ACCESS_KEY, SECRET_KEY, Server

FILES = {
    "A-1/square.png": b"\x89PNG one",
    "A-1/größe + (1)=~!'&.webp": b"two",
    "manifest.csv": b"file\r\n",
    "manifest.json": b"{}",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "spring.zip"
    with ZipFile(path, "w") as opened:
        for name, body in FILES.items():
            opened.writestr(name, body)
    return path


def settings(url: str, **changes: object) -> Settings:
    own: dict[str, object] = {
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SecretStr(SECRET_KEY),
        "aws_endpoint_url": url,
        **changes,
    }
    return Settings().model_copy(update=own)


@pytest.mark.parametrize("server", ["rclone", "ministack"])
def test_every_file_arrives_under_its_name(server: str, request: pytest.FixtureRequest, archive: Path) -> None:
    found: Server = request.getfixturevalue(server)
    client = boto3.client(
        "s3",
        endpoint_url=found.url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="customer")
    bucket = Bucket.of("s3://customer/2026/spring/", settings(found.url))
    for _ in range(2):  # the same again writes the same
        done = upload(archive, bucket)
        assert (done.files, done.size) == (len(FILES), sum(map(len, FILES.values())))
    listed = {one["Key"] for one in client.list_objects_v2(Bucket="customer")["Contents"]}
    assert listed == {f"2026/spring/{name}" for name in FILES}
    for name, body in FILES.items():
        read = client.get_object(Bucket="customer", Key=f"2026/spring/{name}")
        assert read["Body"].read() == body
        if server == "ministack":
            assert read["ContentType"] == ("image/png" if name.endswith(".png") else read["ContentType"])
    client.close()


@pytest.mark.parametrize(
    ("place", "changes", "error"),
    [
        ("s3://nowhere-at-all/x", {}, NotFound),
        ("s3://customer", {"aws_secret_access_key": SecretStr("wrong")}, Forbidden),
        ("s3://customer", {"aws_access_key_id": ""}, InvalidField),
        ("s3://customer", {"aws_endpoint_url": "http://127.0.0.1:9"}, StoreUnavailable),
        ("s3://customer/../other", {}, InvalidField),
        ("s3://Customer!/x", {}, InvalidField),
        ("https://customer/x", {}, InvalidField),
    ],
)
def test_what_cannot_be_written_is_said(
    rclone: Server,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    changes: dict[str, object],
    error: type[FluxfarmError],
) -> None:
    monkeypatch.setattr("fluxfarm.bucket.PAUSE", 0.01)
    with pytest.raises(error) as caught:
        upload(archive, Bucket.of(place, settings(rclone.url, **changes)))
    assert SECRET_KEY not in caught.value.message
