"""User name and password of an account at İYS. The password stays in its file until it is needed."""

from dataclasses import dataclass, field
from pathlib import Path

from iyscheck.errors import SettingsError
from iyscheck.keys import read_private
from loader.iys.faults import AuthFailedFault

_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who asks. `name` is what the account is called here."""

    name: str
    username: str = field(repr=False)
    password_file: Path

    def password(self) -> str:
        """Read the password. Raises AuthFailedFault where nobody, or anybody, can read it."""
        try:
            content = read_private("password_file", self.password_file, _MOST_BYTES)
            password = content.decode().strip("\r\n")
        except SettingsError as error:
            raise AuthFailedFault(f"The password of account '{self.name}' is not there: {error.message}") from None
        except UnicodeDecodeError:
            raise AuthFailedFault(f"The password of account '{self.name}' is not UTF-8.") from None
        if not password:
            raise AuthFailedFault(f"The file of the password of account '{self.name}' is empty.")
        return password

    def stamp(self) -> str:
        """Say which password this is without saying anything of it: it is another one when its file was changed."""
        try:
            found = self.password_file.stat()
        except OSError:
            return "absent"
        return f"{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}:{found.st_size}"
