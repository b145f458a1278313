"""The tree of errors and the plug-ins' registry."""

from __future__ import annotations

import re

import pytest

from coldfusion_shared import errors
from coldfusion_shared.errors import (
    ColdFusionError,
    DuplicateName,
    MissingExtra,
    UnknownName,
    all_errors,
)
from coldfusion_shared.registry import Registry


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in all_errors()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_every_error_is_in_the_tree_and_in_its_docstring() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    ours = {error for error in all_errors() if error.__module__ == errors.__name__}
    assert defined == ours
    for error in defined:
        assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or ""), error
        assert error.__doc__


def test_an_error_keeps_what_to_do_and_which_tensors() -> None:
    error = ColdFusionError("wrong", hint="mend it", tensors=["a", "b"])
    assert (str(error), error.message, error.hint, error.tensors) == (
        "wrong",
        "wrong",
        "mend it",
        ("a", "b"),
    )


def test_a_missing_extra_says_what_to_type() -> None:
    error = MissingExtra.of("train", "torch")
    assert "torch" in error.message
    assert error.hint == "Run: pip install 'coldfusion[train]'"


def test_a_registry_finds_by_name_lists_in_order_and_refuses_twins() -> None:
    registry: Registry[int] = Registry("toy", "coldfusion.toys")
    assert list(registry) == []
    with pytest.raises(UnknownName) as caught:
        registry["b"]
    assert caught.value.hint == "Known: none."
    assert registry.register("b")(2) == 2
    registry.register("a")(1)
    assert (list(registry), registry["a"]) == (["a", "b"], 1)
    with pytest.raises(DuplicateName, match="'a'"):
        registry.register("a")(3)
    assert registry["a"] == 1
    with pytest.raises(UnknownName) as caught:
        registry["c"]
    assert caught.value.hint == "Known: a, b."
