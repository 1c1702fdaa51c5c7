"""tollgate: the self-hosted AI gateway whose books balance."""

__version__ = "0.1.0"
