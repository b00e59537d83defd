"""The package is built once for all tests of this folder; without a registry to install from, they are skipped."""

import pytest

from tests.clients_js.package import Unreachable, build


@pytest.fixture(scope="session", autouse=True)
def built_package():
    try:
        build()
    except Unreachable as error:
        pytest.skip(str(error))
