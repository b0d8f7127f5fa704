"""A secret does not show itself."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import dataclass

import pytest

from credentials.secret import Secret


@dataclass
class _Holder:
    password: Secret


@pytest.mark.parametrize("show", [str, repr, "{}".format, "%s".__mod__, "{:>20}".format])
def test_hides_its_value_in_text(show) -> None:
    assert "hunter2" not in show(Secret("hunter2"))
    assert "hunter2" not in show(_Holder(Secret("hunter2")).password)


def test_hides_its_value_inside_a_dataclass_and_a_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("%s", _Holder(Secret("hunter2")))
    assert "hunter2" not in caplog.text


def test_reveals_its_value_on_request() -> None:
    assert Secret("hunter2").reveal() == "hunter2"


def test_refuses_to_be_pickled_or_copied() -> None:
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            take(Secret("hunter2"))


def test_equals_a_secret_of_the_same_value_and_nothing_else() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")
