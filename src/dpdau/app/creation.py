"""A new data directory."""

from dpdau.app.product import App
from dpdau.app.wiring import open_keyring, secret_of, system_clock
from dpdau.datadir import DataDir
from dpdau.domain import Clock
from dpdau.settings import Settings


def create(settings: Settings, *, encrypt_store: bool, clock: Clock = system_clock) -> None:
    """Makes the data directory with its keyring, store and ledger; keeps what is there.

    Raises:
        InvalidSettingError: The store is there without encryption and `encrypt_store` asks for it.
        DataDirInUseError: A service owns the directory.
    """
    folder = DataDir(settings.DATA_DIR).create()
    open_keyring(folder, secret_of(settings), clock=clock, encrypt_store=encrypt_store)
    App.open(settings, clock=clock).close()
