"""No test sees, or leaves, anything in the user's own cache folder; OLM_MESSAGES=FILE notes the errors of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_configure(config: pytest.Config) -> None:
    if file := os.environ.get("OLM_MESSAGES"):
        from tests.messages.record import Recorder

        config.pluginmanager.register(Recorder(Path(file).absolute()), "olm-messages")
