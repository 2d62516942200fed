# Written by the build: what this package was built with.

TORCH_VERSION: str
VERSION: str
COMPILER: str
PLATFORM: str
