"""pyproject.toml has no key for cffi extension modules; this is the accepted way to name them."""

from setuptools import setup

setup(cffi_modules=["corekernel/native/build.py:ffibuilder", "bench/native/build.py:ffibuilder"])
