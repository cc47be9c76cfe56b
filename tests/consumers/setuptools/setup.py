"""Builds an extension in C with setuptools alone, as docs/use/native.md says."""

from setuptools import Extension, setup

import moored

setup(
    name="consumer",
    version="1",
    ext_modules=[
        Extension(
            "consumer",
            ["module.c", moored.get_c_source()],
            include_dirs=[moored.get_include()],
            language="c++",
        )
    ],
)
