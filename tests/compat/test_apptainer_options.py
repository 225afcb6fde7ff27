"""The table of options and the help of the Apptainer that is installed."""

from __future__ import annotations

import re

import pytest

from sifkit.runtime.planning.options import options_for

from ..support.tools import find, run

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(not find("apptainer"), reason="Apptainer is not installed"),
]


@pytest.mark.parametrize("verb", ["exec", "run", "shell"])
def test_every_option_of_the_help_is_known(verb: str) -> None:
    text = run("apptainer", verb, "--help").stdout.decode()
    theirs = set(re.findall(r"^ +(?:-[A-Za-z], )?--([a-z-]+)(?: .*)?$", text, re.MULTILINE)) - {"help"}
    assert len(theirs) > 50
    assert theirs <= {option.name for option in options_for(verb)}
