"""The kernels are found, chosen by the environment, and their absence is no error."""

import pytest

from smalti.errors import SmaltiError
from smalti.ops import native


def test_they_were_compiled_here():
    """A machine without a compiler may skip this; one with a compiler may not."""
    if not native.LIBRARY.exists():
        pytest.skip("smalti was installed without a C compiler")
    assert native.load("portable") is not None


def test_off_means_off(monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", "off")
    assert native.kernels() is None


def test_an_unknown_name_is_a_one_line_error(monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", "sse9")
    with pytest.raises(SmaltiError, match="SMALTI_KERNELS is 'sse9'; it can be off, auto, avx512"):
        native.kernels()


def test_without_a_library_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    native.load.cache_clear()
    try:
        assert all(native.load(variant) is None for variant in native.VARIANTS)
    finally:
        native.load.cache_clear()
