"""Where a bucket is reached; what arrives there is tests/s3/test_delivery.py's."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from fluxfarm.bucket import Bucket
from fluxfarm.settings import Settings


@pytest.mark.parametrize(
    ("name", "own", "url"),
    [
        ("spring", "", "https://spring.s3.eu-west-1.amazonaws.com"),
        ("assets.example.com", "", "https://s3.eu-west-1.amazonaws.com/assets.example.com"),
        ("assets.example.com", "http://127.0.0.1:9000/", "http://127.0.0.1:9000/assets.example.com"),
    ],
)
def test_a_name_with_dots_stands_in_the_path(name: str, own: str, url: str) -> None:
    settings = Settings().model_copy(
        update={
            "aws_access_key_id": "key",
            "aws_secret_access_key": SecretStr("secret"),
            "aws_region": "eu-west-1",
            "aws_endpoint_url": own,
        }
    )
    assert Bucket.of(f"s3://{name}/2026", settings).url == url
