"""Builds the Cython module with setuptools: moored's headers, and its C face as one more source."""

import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import moored

os.chdir(Path(__file__).parent)
# setuptools wants its sources below setup.py.
shutil.copy(moored.get_c_source(), "moored_c.cpp")

setup(
    name="consumer",
    ext_modules=cythonize(
        Extension(
            "consumer",
            ["consumer.pyx", "moored_c.cpp"],
            include_dirs=[moored.get_include(), f"{moored.get_include()}/moored"],
            extra_compile_args=["-std=c++20"],
        )
    ),
)
