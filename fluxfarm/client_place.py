"""Where the farm is and which key opens it: arguments, the environment, or the farm that runs here."""

from __future__ import annotations

from pydantic import ValidationError

from fluxfarm import farmfile
from fluxfarm.client_transport import START_ONE, farm_url
from fluxfarm.errors import InvalidField, Unavailable
from fluxfarm.settings import Settings


def read_settings() -> Settings:
    """The settings of the environment.

    Raises:
        InvalidField: a variable has a value that does not fit.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidField(f"{name} in the environment does not fit: {first['msg']}.", param=name) from None


def locate(url: str | None, api_key: str | None, settings: Settings) -> tuple[str, str]:
    """Address and key: as given, else of the environment, else of the farm that runs in the data folder.

    A running farm's key is used for that farm's address only.

    Raises:
        Unavailable: nobody says where a farm is.
    """
    key = api_key or settings.api_key.get_secret_value()
    running = farmfile.find(settings.data_dir)
    place = url or settings.url or (running.url if running is not None else "")
    if not place:
        raise Unavailable(f"No farm runs in the folder {settings.data_dir}. {START_ONE}")
    if not key and running is not None and farm_url(place) == farm_url(running.url):
        key = running.api_key
    return place, key
