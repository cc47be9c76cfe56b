# The installed package's moored/_version.py is generated from include/moored/version.hpp.
__version__: str
