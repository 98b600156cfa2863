"""The ``.whit`` file: a compressed network and what was decided about it, safe to open."""

from whit.store.arrays import Profile, check_profile
from whit.store.files import Stored, encode, read, write_whole

__all__ = ["Profile", "Stored", "check_profile", "encode", "read", "write_whole"]
